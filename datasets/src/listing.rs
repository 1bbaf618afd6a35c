//! The vehicle goes on sale, and shoppers look at it.

use serde_json::json;

use crate::{
    car::Car,
    cars::City,
    story::Story,
    truth::{Fact, ListingTruth},
};

/// The least a sale must bring above the cost.
const LEAST_MARGIN: f64 = 1.06;
/// What a price loses each time it is lowered.
pub(crate) const MARKDOWN: f64 = 0.97;

/// Publish the listing and let shoppers see it; the last price.
pub(crate) fn publish(story: &mut Story<'_>, car: &Car, cost: f64) -> f64 {
    let (listing, vehicle) = (&car.listing_id, &car.vehicle_id);
    let City { name: city, province, country, latitude, longitude, .. } = *car.city;
    let title = format!("{} {} {} {}", car.year, car.model.make, car.model.model, car.trim);
    let mut created = car.details.clone();
    created["mileage"] = json!(car.mileage);
    let more = json!({
        "listingId": listing,
        "createdAt": story.at(),
        "title": title,
        "description": format!("{title} in {} condition, {} km, inspected and certified.", car.condition, car.mileage),
        "dealerId": "dlr-forecourt",
        "dealerName": "Forecourt Motors",
        "city": city,
        "province": province,
        "country": country,
        "latitude": latitude + story.between(-0.05, 0.05),
        "longitude": longitude + story.between(-0.05, 0.05),
    });
    if let (Some(created), Some(more)) = (created.as_object_mut(), more.as_object()) {
        created.extend(more.clone());
    }
    story.hours(1.0, 8.0);
    story.tell("inventory", "VehicleListingCreated", created);
    story.fact(listed(car));
    let mut price = car.worth.max(cost * LEAST_MARGIN);
    let set = |story: &mut Story<'_>, price: f64, strategy: &str| {
        let data = json!({"listingId": listing, "price": Story::round(price, 10.0), "pricingStrategy": strategy, "currency": "CAD", "vehicleId": vehicle});
        story.tell("inventory", "PriceSet", data);
        story.fact(Fact::Priced { listing: listing.clone(), price: Story::round(price, 10.0) });
    };
    valued(story, vehicle, car.worth * story.between(0.92, 1.12));
    set(story, price, "market");
    if story.chance(0.2) {
        // What it is worth later says nothing about what was asked before.
        valued(story, vehicle, car.worth * story.between(0.8, 1.0));
    }
    let urls = pictures(car);
    story.tell(
        "inventory",
        "PhotosUploaded",
        json!({"listingId": listing, "photoUrls": urls, "uploadedAt": story.at(), "vehicleId": vehicle}),
    );
    story.fact(Fact::Photographed { listing: listing.clone(), photos: urls.len() as u64 });
    story.tell(
        "production",
        "VehicleListedForSale",
        json!({"listingId": listing, "vehicleId": vehicle, "listedAt": story.at(), "price": Story::round(price, 10.0)}),
    );
    story.fact(Fact::Published { listing: listing.clone() });
    story.tell(
        "inventory",
        "ListingPublished",
        json!({"listingId": listing, "publishedAt": story.at(), "visibility": "public", "vehicleId": vehicle}),
    );
    story.tell(
        "inventory",
        "VehicleAvailable",
        json!({"vehicleId": vehicle, "availableAt": story.at(), "listingId": listing}),
    );
    if car.is_kind(2) || story.chance(0.1) {
        let to = story.later(7.0 * 24.0);
        story.tell(
            "inventory",
            "ListingFeatured",
            json!({"listingId": listing, "featuredFrom": story.at(), "featuredTo": to, "vehicleId": vehicle}),
        );
    }
    if car.is_kind(4) || story.chance(0.1) {
        story.hours(2.0, 40.0);
        let update = json!([{"field": "description", "value": format!("{title}. One owner, winter tires included.")}]);
        story.tell(
            "inventory",
            "VehicleDetailsUpdated",
            json!({"listingId": listing, "updatedFields": update, "updatedAt": story.at(), "vehicleId": vehicle}),
        );
    }
    for _ in 0..story.whole(1, 6) {
        shoppers(story, car);
        story.days(3.0, 10.0);
        if story.chance(0.35) {
            price = (price * MARKDOWN).max(cost * LEAST_MARGIN);
            set(story, price, "aging");
        }
    }
    price
}

/// A car's new listing, for the ledger.
pub(crate) fn listed(car: &Car) -> Fact {
    Fact::Listed(Box::new(ListingTruth {
        listing: car.listing_id.clone(),
        status: "created",
        make: car.model.make,
        model: car.model.model,
        trim: car.trim,
        year: car.year,
        mileage: car.mileage,
        city: car.city.name,
        price: None,
        photos: 0,
    }))
}

/// Drawings of such a car, which the server has: a generated market has no photos.
pub(crate) fn pictures(car: &Car) -> Vec<String> {
    let (body, color) = (car.model.body.to_lowercase(), car.color.to_lowercase());
    ["side", "front", "rear", "interior"].map(|angle| format!("/illustrations/{body}-{color}-{angle}.svg")).to_vec()
}

/// People who search, look, compare and leave.
fn shoppers(story: &mut Story<'_>, car: &Car) {
    let vehicle = &car.vehicle_id;
    for _ in 0..story.whole(3, 8) {
        let user = story.id("usr");
        let search = story.id("sea");
        story.wait(5.0, 240.0);
        story.sleep();
        story.tell("browsing", "UserSearched", json!({"userId": user, "searchQuery": format!("{} {}", car.model.make, car.model.model), "timestamp": story.at(), "searchId": search}));
        if story.chance(0.6) {
            story.tell("browsing", "FilterApplied", json!({"userId": user, "filterType": "body_type", "filterValues": [car.model.body], "timestamp": story.at(), "searchId": search}));
        }
        story.tell(
            "browsing",
            "SearchResultsDisplayed",
            json!({"searchId": search, "resultCount": story.whole(1, 80), "results": [vehicle], "userId": user}),
        );
        story.tell("browsing", "VehicleViewed", json!({"vehicleId": vehicle, "userId": user, "viewedAt": story.at(), "duration": story.whole(5, 300), "listingId": car.listing_id}));
        if story.chance(0.5) {
            story.tell(
                "browsing",
                "PhotoGalleryViewed",
                json!({"vehicleId": vehicle, "userId": user, "photosViewed": [1, 2, 3]}),
            );
        }
        if story.chance(0.3) {
            story.tell(
                "browsing",
                "VehicleHistoryReportViewed",
                json!({"vehicleId": vehicle, "userId": user, "viewedAt": story.at()}),
            );
            story.tell(
                "browsing",
                "SpecificationsViewed",
                json!({"vehicleId": vehicle, "userId": user, "viewedAt": story.at()}),
            );
            story.tell(
                "browsing",
                "PricingDetailsViewed",
                json!({"vehicleId": vehicle, "userId": user, "viewedAt": story.at()}),
            );
        }
        if story.chance(0.2) {
            story.tell(
                "browsing",
                "VehicleCompared",
                json!({"userId": user, "vehicleIds": [vehicle, story.id("veh")], "comparedAt": story.at()}),
            );
        }
        if story.chance(0.25) {
            story.tell(
                "browsing",
                "FavoriteAdded",
                json!({"userId": user, "vehicleId": vehicle, "favoritedAt": story.at(), "listingId": car.listing_id}),
            );
            if story.chance(0.4) {
                story.tell(
                    "browsing",
                    "FavoriteRemoved",
                    json!({"userId": user, "vehicleId": vehicle, "removedAt": story.at(), "listingId": car.listing_id}),
                );
            }
        }
    }
}

/// What a vehicle is worth, as a book of prices says.
fn valued(story: &mut Story<'_>, vehicle: &str, worth: f64) {
    let worth = Story::round(worth, 10.0);
    story.tell("dealers", "VehicleValuationUpdated", json!({"vehicleId": vehicle, "valuationId": story.id("val"), "estimatedValue": worth, "marketValue": worth, "source": "book", "valuationDate": story.at()}));
}
