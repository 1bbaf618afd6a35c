use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Envelope, STYLES, Style, dress, structured};
use crate::{Catalogue, catalogue::CatalogueError, examples, validation::parse_event};

#[test]
fn the_three_other_producers_are_read_as_they_write() -> Result<(), Box<dyn std::error::Error>> {
    let catalogue = Catalogue::embedded()?;
    for (message, view, aggregate, tenant, correlation) in [
        (
            json!({"event_id": "c-1", "event_type": "OrderPaid", "occurred_on": "2026-11-02T08:30:00Z", "aggregate_type": "Order",
                   "aggregate_id": "ord-1", "payload": {"order_id": "ord-1", "user_id": "u-1", "course_ids": ["x"], "payment_id": "p-1"}}),
            "order_paid",
            "ord-1",
            "main",
            None,
        ),
        (
            json!({"eventId": "p1", "eventType": "loyalty.points.earned", "version": "1.0", "timestamp": "2025-11-07T15:30:00Z",
                   "aggregateId": "enrollment-111", "businessId": "biz-456", "metadata": {"correlationId": "corr-1"},
                   "data": {"customerId": "c", "programId": "p", "pointsEarned": 50, "totalPoints": 250, "transactionId": "t",
                            "referenceType": "PURCHASE", "referenceId": "order-444", "expiresAt": "2026-11-07T00:00:00Z"}}),
            "points_earned",
            "enrollment-111",
            "biz-456",
            Some("corr-1"),
        ),
        (
            json!({"specversion": "1.0", "id": "ce-1", "source": "/dealers/7", "type": "org.example.inventory.PriceSetEvent",
                   "time": "2026-11-02T08:30:00Z", "subject": "lst-1", "tenantid": "east",
                   "data_base64": "eyJsaXN0aW5nSWQiOiAibHN0LTEiLCAicHJpY2UiOiAxOTk5OX0="}),
            "price_set",
            "lst-1",
            "east",
            None,
        ),
    ] {
        let event = parse_event(&catalogue, message.to_string().as_bytes(), None)?;
        assert_eq!(catalogue.event_at(event.kind).view, view);
        assert_eq!((event.aggregate_id.as_str(), event.tenant_id.as_str()), (aggregate, tenant));
        assert_eq!((event.correlation_id.as_deref(), event.extra), (correlation, None), "{message}");
    }
    Ok(())
}

#[test]
fn a_cloud_event_in_headers_is_the_one_in_json() -> Result<(), Box<dyn std::error::Error>> {
    let catalogue = Catalogue::embedded()?;
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e%20%C3%A9%"),
        ("ce-type", "inventory.PriceSet"),
        ("ce-time", "2026-11-02T08:30:00Z"),
        ("ce-source", "/x"),
        ("host", "h"),
    ];
    let body = br#"{"listingId": "lst-1", "price": 9}"#;
    let joined = structured(headers, body).transpose()?.unwrap_or_default();
    let joined: Value = serde_json::from_slice(&joined)?;
    assert_eq!(joined["id"], "e é%");
    let mut named = joined.clone();
    named["id"] = json!("e-1");
    let event = parse_event(&catalogue, named.to_string().as_bytes(), None)?;
    assert_eq!((event.aggregate_id.as_str(), event.source.as_deref()), ("lst-1", Some("/x")));
    assert!(structured([("content-type", "application/json")], body).is_none());
    assert!(structured(headers, b"no json").is_some_and(|refused| refused.is_err()));
    Ok(())
}

#[test]
fn faults_are_named_as_their_envelope_spells_them() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    for (message, field) in [
        (json!({"event_id": "e", "event_type": "OrderPaid", "payload": {}}), "occurred_on"),
        (
            json!({"event_id": "e", "event_type": "OrderPaid", "occurred_on": "2026-11-02", "aggregate_id": "o", "payload": {"order_id": 7}}),
            "payload.order_id",
        ),
        (json!({"specversion": "0.3", "id": "e"}), "specversion"),
        (json!({"specversion": "1.0", "id": "e", "datacontenttype": "text/xml", "data": "<a/>"}), "datacontenttype"),
        (
            json!({"specversion": "1.0", "id": "e", "type": "PriceSet", "time": "2026-11-02", "data_base64": "?"}),
            "data_base64",
        ),
        (
            json!({"eventId": "e", "eventType": "loyalty.points.earned", "businessId": "b", "timestamp": "2026-11-02", "data": {}}),
            "aggregateId",
        ),
    ] {
        let refused = parse_event(&catalogue, message.to_string().as_bytes(), None).err();
        assert_eq!(refused.and_then(|refused| refused.field).as_deref(), Some(field), "{message}");
    }
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9é .:_/-]{1,12}"
}

/// Any source but the one that CloudEvents has for none.
fn source() -> impl Strategy<Value = String> {
    "/[a-z]{1,12}"
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any event of the catalogue: some of its optional fields and members, and members nobody knows.
fn any_event() -> impl Strategy<Value = (usize, Value)> {
    let optional =
        (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()), prop::option::of(source()));
    let unknown = || prop::collection::btree_map("zz[a-z]{1,5}", any_json(), 0..3);
    (any::<prop::sample::Index>(), any::<u64>(), optional, unknown(), unknown()).prop_map(
        |(index, dropped, (tenant, correlation, causation, source), beside, within)| {
            let catalogue = Catalogue::embedded().unwrap();
            let events: Vec<_> = catalogue.events().collect();
            let at = index.index(events.len());
            let (context, definition) = events[at];
            let mut event = examples::event(context, definition);
            let members =
                [("tenantId", tenant), ("correlationId", correlation), ("causationId", causation), ("source", source)];
            for (name, value) in members {
                if let Some(value) = value {
                    event[name] = value.into();
                }
            }
            let not_null = |entries: std::collections::BTreeMap<String, Value>| {
                entries.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>()
            };
            if let Some(data) = event["data"].as_object_mut() {
                for (place, field) in definition.fields.iter().enumerate() {
                    if !field.required && dropped >> (place % 64) & 1 == 1 {
                        data.remove(&context.columns[field.column].field);
                    }
                }
                data.extend(not_null(within));
            }
            if let Some(event) = event.as_object_mut() {
                event.extend(not_null(beside));
            }
            (at, event)
        },
    )
}

proptest! {
    #[test]
    fn an_event_means_the_same_in_every_envelope((at, canonical) in any_event()) {
        let catalogue = Catalogue::embedded().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (context, definition) = catalogue.events().nth(at).ok_or_else(|| TestCaseError::fail("no event"))?;
        let read = |message: &Value| parse_event(&catalogue, message.to_string().as_bytes(), None);
        let meant = read(&canonical);
        prop_assert!(meant.is_ok(), "{canonical}: {meant:?}");
        for envelope in &STYLES {
            let dressed = dress(envelope.style, &catalogue, &context.name, definition, &canonical);
            let recognised = dressed.as_object().map(|message| Envelope::of(message).style);
            prop_assert_eq!(recognised, Some(envelope.style));
            prop_assert_eq!(read(&dressed), meant.clone(), "{}", dressed);
        }
    }

    #[test]
    fn random_objects_never_panic(message in any_json(), style in 0..STYLES.len()) {
        let catalogue = Catalogue::embedded().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let mut message = message.as_object().cloned().unwrap_or_default();
        let marks = [("specversion", json!("1.0")), ("event_id", json!("e")), ("businessId", json!("b")), ("eventId", json!("e"))];
        let (name, value) = marks[style].clone();
        message.insert(name.to_owned(), value);
        prop_assert!(parse_event(&catalogue, Value::Object(message).to_string().as_bytes(), None).is_err());
    }
}

#[test]
fn a_canonical_event_is_its_own_canonical_dress() -> Result<(), CatalogueError> {
    let catalogue = Catalogue::embedded()?;
    if let Some((context, definition)) = catalogue.events().next() {
        let mut example = examples::event(context, definition);
        example["eventType"] = json!(definition.name);
        assert_eq!(dress(Style::Canonical, &catalogue, &context.name, definition, &example), example);
    }
    Ok(())
}
