//! The events that tell a row's part of a listing's story.

use schemas::{Catalogue, field_type::format_timestamp};
use serde_json::{Map, Value, json};

/// The events that a listing is told with: context and name.
pub(crate) const DETAILS: (&str, &str) = ("acquisition", "VehicleDetailsSubmitted");
pub(crate) const LISTING: (&str, &str) = ("inventory", "VehicleListingCreated");
pub(crate) const PRICE: (&str, &str) = ("inventory", "PriceSet");
const PUBLISHED: (&str, &str) = ("inventory", "ListingPublished");
const WITHDRAWN: (&str, &str) = ("inventory", "ListingDeactivated");
const SOLD: (&str, &str) = ("inventory", "VehicleSold");

const MICROS_PER_MILLISECOND: i64 = 1_000;

/// One row's listing, when it happens, and what its events' ids begin with.
pub(crate) struct Telling<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) source: &'a str,
    pub(crate) listing_id: String,
    pub(crate) vehicle_id: String,
    pub(crate) row_id: String,
    /// Microseconds since 1970, UTC. Each event of the row is a millisecond after the one before.
    pub(crate) time: i64,
    pub(crate) events: Vec<Value>,
}

impl Telling<'_> {
    /// Describe, price and publish a listing.
    pub(crate) fn list(&mut self, fields: &Map<String, Value>) {
        let details = self.carried(DETAILS, fields);
        let complete = self.required(DETAILS).all(|name| details.contains_key(name));
        let mut listing = self.carried(LISTING, fields);
        if complete {
            // What the vehicle's own event says, the listing need not repeat.
            listing.retain(|name, _| !details.contains_key(name));
            self.tell(DETAILS, "details", details);
        }
        let named = ["year", "make", "model", "trim"].into_iter().filter_map(|name| fields.get(name));
        let named: Vec<String> =
            named.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        if !named.is_empty() {
            listing.entry("title").or_insert_with(|| named.join(" ").into());
        }
        listing.insert("createdAt".to_owned(), format_timestamp(self.time).into());
        self.tell(LISTING, "listing", listing);
        self.price(fields);
        self.publish();
    }

    /// Set the price, where there is one.
    pub(crate) fn price(&mut self, fields: &Map<String, Value>) {
        if fields.contains_key("price") {
            let price = self.carried(PRICE, fields);
            self.tell(PRICE, "price", price);
        }
    }

    pub(crate) fn publish(&mut self) {
        let data = [("publishedAt".to_owned(), format_timestamp(self.time).into())];
        self.tell(PUBLISHED, "published", data.into_iter().collect());
    }

    pub(crate) fn withdraw(&mut self) {
        let data = [("deactivatedAt".to_owned(), format_timestamp(self.time).into())];
        self.tell(WITHDRAWN, "withdrawn", data.into_iter().collect());
    }

    pub(crate) fn sell(&mut self, price: Value) {
        let data = [("soldAt".to_owned(), format_timestamp(self.time).into()), ("finalPrice".to_owned(), price)];
        self.tell(SOLD, "sold", data.into_iter().collect());
    }

    /// What of the row's fields an event carries.
    fn carried(&self, (context, name): (&str, &str), fields: &Map<String, Value>) -> Map<String, Value> {
        let Some((_, context)) = self.catalogue.context(context) else { return Map::new() };
        let columns = context.event(name).into_iter().flat_map(|event| &event.fields);
        let names = columns.map(|field| context.columns[field.column].field.as_str());
        names.filter_map(|name| Some((name.to_owned(), fields.get(name)?.clone()))).collect()
    }

    fn required(&self, (context, name): (&str, &str)) -> impl Iterator<Item = &str> {
        let context = self.catalogue.context(context).map(|(_, context)| context);
        context.into_iter().flat_map(move |context| {
            let fields = context.event(name).into_iter().flat_map(|event| &event.fields);
            fields.filter(|field| field.required).map(|field| context.columns[field.column].field.as_str())
        })
    }

    fn tell(&mut self, (context, name): (&str, &str), part: &str, mut data: Map<String, Value>) {
        data.insert("vehicleId".to_owned(), self.vehicle_id.clone().into());
        let aggregate = if (context, name) == DETAILS {
            json!({"type": "Vehicle", "id": self.vehicle_id})
        } else {
            data.insert("listingId".to_owned(), self.listing_id.clone().into());
            json!({"type": "Listing", "id": self.listing_id})
        };
        self.events.push(json!({
            "eventId": format!("{}-{part}", self.row_id),
            "eventType": format!("{context}.{name}"),
            "eventVersion": "1.0",
            "timestamp": format_timestamp(self.time),
            "aggregateType": aggregate["type"],
            "aggregateId": aggregate["id"],
            "source": format!("import:{}", self.source),
            "data": data,
        }));
        self.time += MICROS_PER_MILLISECOND;
    }
}
