use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Event, RejectionCode, parse_event};
use crate::{Catalogue, ContextBatchBuilder, MAX_EVENT_BYTES, Position, Stamp, catalogue::CatalogueError, rows};

fn catalogue() -> Result<Arc<Catalogue>, CatalogueError> {
    Catalogue::embedded()
}

fn price_set() -> Value {
    json!({
        "eventId": "e-1", "eventType": "PriceSet", "eventVersion": "1.0", "timestamp": "2026-11-02T08:30:00Z",
        "aggregateType": "Listing", "aggregateId": "lst-1", "data": {"listingId": "lst-1", "price": 18_900}
    })
}

/// The event with `pointer` set to `value`, or removed when it is `None`.
fn changed(pointer: &str, value: Option<Value>) -> Value {
    let mut event = price_set();
    let (parent, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    if let Some(object) = event.pointer_mut(parent).and_then(Value::as_object_mut) {
        match value {
            Some(value) => object.insert(name.to_owned(), value),
            None => object.remove(name),
        };
    }
    event
}

fn rejected(catalogue: &Catalogue, bytes: &[u8], context: Option<&str>) -> Option<(RejectionCode, Option<String>)> {
    parse_event(catalogue, bytes, context).err().map(|rejection| (rejection.code, rejection.field))
}

#[test]
fn each_fault_is_named_with_its_field() -> Result<(), CatalogueError> {
    let catalogue = catalogue()?;
    for (event, code, field) in [
        (json!([1]), RejectionCode::NotAnObject, None),
        (changed("/eventId", None), RejectionCode::MissingField, Some("eventId")),
        (changed("/eventId", Some(json!(7))), RejectionCode::WrongType, Some("eventId")),
        (changed("/eventId", Some(json!("a b"))), RejectionCode::InvalidValue, Some("eventId")),
        (changed("/eventType", Some(json!("PriceSat"))), RejectionCode::UnknownEventType, Some("eventType")),
        (changed("/timestamp", None), RejectionCode::MissingField, Some("timestamp")),
        (changed("/timestamp", Some(json!("soon"))), RejectionCode::InvalidValue, Some("timestamp")),
        (changed("/data", None), RejectionCode::MissingField, Some("data")),
        (changed("/data", Some(json!([]))), RejectionCode::WrongType, Some("data")),
        (changed("/data/price", None), RejectionCode::MissingField, Some("data.price")),
        (changed("/data/price", Some(Value::Null)), RejectionCode::MissingField, Some("data.price")),
        (changed("/data/price", Some(json!("cheap"))), RejectionCode::WrongType, Some("data.price")),
        (changed("/tenantId", Some(json!({}))), RejectionCode::WrongType, Some("tenantId")),
    ] {
        let bytes = event.to_string().into_bytes();
        assert_eq!(rejected(&catalogue, &bytes, None), Some((code, field.map(str::to_owned))), "{event}");
    }
    assert_eq!(rejected(&catalogue, b"{\"a\":", None), Some((RejectionCode::InvalidJson, None)));
    let large = vec![b' '; MAX_EVENT_BYTES + 1];
    assert_eq!(rejected(&catalogue, &large, None), Some((RejectionCode::EventTooLarge, None)));
    let event = price_set().to_string();
    let mismatch = Some((RejectionCode::SubjectMismatch, Some("eventType".to_owned())));
    assert_eq!(rejected(&catalogue, event.as_bytes(), Some("support")), mismatch);
    Ok(())
}

#[test]
fn a_shared_name_is_told_apart_by_its_required_fields() -> Result<(), CatalogueError> {
    let catalogue = catalogue()?;
    let event = |name: &str, data: Value| {
        json!({"eventId": "e", "eventType": name, "timestamp": "2026-11-02T08:30:00Z", "aggregateId": "a", "data": data})
            .to_string()
    };
    let context = |event: &Event| catalogue.context_at(event.kind.context).name.clone();
    for (name, data, expected) in [
        ("FinancingApproved", json!({"applicationId": "f", "approvedAmount": 9}), "financing"),
        ("FinancingApproved", json!({"financingApplicationId": "f", "approvedAmount": 9}), "purchase"),
        (
            "financing.FinancingApproved",
            json!({"applicationId": "f", "financingApplicationId": "f", "approvedAmount": 9}),
            "financing",
        ),
    ] {
        let parsed = parse_event(&catalogue, event(name, data).as_bytes(), None);
        assert_eq!(parsed.as_ref().map(context), Ok(expected.to_owned()));
    }
    let both = json!({"applicationId": "f", "financingApplicationId": "f", "approvedAmount": 9});
    let refusal = parse_event(&catalogue, event("FinancingApproved", both).as_bytes(), None).map_err(|r| r.message);
    let message = "eventType \"FinancingApproved\" is ambiguous; \
                   name one of purchase.FinancingApproved, financing.FinancingApproved";
    assert_eq!(refusal, Err(message.to_owned()));
    Ok(())
}

#[test]
fn nothing_an_event_says_is_lost_in_its_columns() -> Result<(), Box<dyn std::error::Error>> {
    let catalogue = catalogue()?;
    let data = json!({
        "listingId": "lst-1", "vehicleId": "veh-1", "year": 2021, "latitude": 43.65, "features": ["sunroof", "é"],
        "createdAt": "2026-11-02T08:30:00.250Z", "unheardOf": {"deep": [1, 2.5, null]}
    });
    let event = json!({
        "eventId": "e-1", "eventType": "VehicleListingCreated", "timestamp": "2026-11-02T08:30:00Z", "data": data,
        "region": "east"
    });
    let event = parse_event(&catalogue, event.to_string().as_bytes(), None)?;
    assert_eq!((event.aggregate_id.as_str(), event.tenant_id.as_str()), ("lst-1", "main"));
    let kind = event.kind;
    let mut builder = ContextBatchBuilder::new(&catalogue, kind.context, 1);
    builder.push(&catalogue, event, Stamp { position: Position::new(7), ingested_at: 1 });
    let batch = builder.finish()?;
    let mut expected = data;
    expected["$envelope"] = json!({"region": "east"});
    assert_eq!(Value::Object(rows::payload(catalogue.context_at(kind.context), &batch, 0)), expected);
    Ok(())
}

#[test]
fn an_older_version_is_stored_in_the_current_shape_and_a_newer_one_keeps_what_is_unknown()
-> Result<(), Box<dyn std::error::Error>> {
    let catalogue = catalogue()?;
    let earned = |version: &str, points: &str, more: Value| {
        let mut event = json!({
            "eventId": "p-1", "eventType": "loyalty.points.earned", "version": version, "businessId": "b",
            "timestamp": "2025-11-07T15:30:00Z", "aggregateId": "enrollment-1",
            "data": {"customerId": "c", "programId": "p", "totalPoints": 250, "transactionId": "t",
                     "referenceType": "PURCHASE", "referenceId": "o"}
        });
        event["data"][points] = json!(50);
        if let (Some(data), Some(more)) = (event["data"].as_object_mut(), more.as_object()) {
            data.extend(more.clone());
        }
        parse_event(&catalogue, event.to_string().as_bytes(), None)
    };
    let current = earned("2.0", "pointsEarned", json!({}))?;
    let older = earned("1.0", "points", json!({}))?;
    assert_eq!((older.version.as_str(), &older.cells, &older.extra), ("1.0", &current.cells, &None));
    // Without the older version the field is unknown, and the one that is required is missing.
    let refused = earned("2.0", "points", json!({})).err().and_then(|refused| refused.field);
    assert_eq!(refused.as_deref(), Some("data.pointsEarned"));
    let newer = earned("3.0", "pointsEarned", json!({"multiplier": 2}))?;
    assert_eq!((newer.version.as_str(), &newer.cells), ("3.0", &current.cells));
    assert_eq!(newer.extra.as_deref(), Some(r#"{"multiplier":2}"#));
    Ok(())
}

#[test]
fn values_out_of_their_limits_are_refused_with_what_is_expected_and_found() -> Result<(), CatalogueError> {
    let catalogue = catalogue()?;
    for (name, field, value, message) in [
        ("PriceSet", "price", json!(0), "data.price is above 0, not 0"),
        ("VehicleListingCreated", "mileage", json!(-1), "data.mileage is at least 0, not -1"),
        (
            "VehicleListingCreated",
            "year",
            json!(1885),
            "data.year is a year from 1886 to 2 after the event's, not 1885",
        ),
        ("VehicleListingCreated", "latitude", json!(90.5), "data.latitude is at least -90 and at most 90, not 90.5"),
        (
            "CustomerEnrolled",
            "enrollmentMethod",
            json!("FORCED"),
            "data.enrollmentMethod is one of MANUAL, AUTO, SELF, not \"FORCED\"",
        ),
    ] {
        let (context, definition) =
            catalogue.events().find(|(_, event)| event.name == name).unwrap_or_else(|| panic!("no {name}"));
        let mut event = crate::examples::event(context, definition);
        event["data"][field] = value;
        let refused = parse_event(&catalogue, event.to_string().as_bytes(), None).map_err(|refused| refused.message);
        assert_eq!(refused.err().as_deref(), Some(message));
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let catalogue = catalogue().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(parse_event(&catalogue, &bytes, None).is_err());
    }

    #[test]
    fn money_keeps_its_cents(cents in -999_999_999_999_i128..=999_999_999_999) {
        let shown = rows::money(cents);
        prop_assert_eq!(
            crate::field_type::FieldType::Money.cell(&shown),
            Some(crate::field_type::Cell::Money(cents))
        );
    }
}
