//! Cars that dealers offer: listed, priced, pictured, lowered in price, and withdrawn. Only their listing events are
//! generated, so that a market has many cars on offer for few events.

use serde_json::json;

use crate::{
    acquisition,
    car::Car,
    cars::City,
    listing::{self, MARKDOWN},
    story::Story,
    truth::Fact,
};

/// How long a car stays on offer, in days; an assumption: used cars stand about seven weeks.
const MIN_STAY_DAYS: f64 = 20.0;
const MAX_STAY_DAYS: f64 = 80.0;
pub(crate) const MEAN_STAY_DAYS: f64 = (MIN_STAY_DAYS + MAX_STAY_DAYS) / 2.0;
/// Asking price as a share of the car's value.
const MIN_ASKING_SHARE: f64 = 0.86;
const MAX_ASKING_SHARE: f64 = 1.18;

const DEALERS: [(&str, &str); 8] = [
    ("dlr-harbour", "Harbour Auto"),
    ("dlr-maple", "Maple Ridge Cars"),
    ("dlr-prairie", "Prairie Motors"),
    ("dlr-lakeshore", "Lakeshore Auto Sales"),
    ("dlr-laurentides", "Autos Laurentides"),
    ("dlr-summit", "Summit Pre-Owned"),
    ("dlr-union", "Union Street Motors"),
    ("dlr-northern", "Northern Wheels"),
];

/// Offer a car from now on, in a market that began at `start`.
pub(crate) fn offer(story: &mut Story<'_>, start: i64) {
    // Its number only decides which of the rarer turns a life takes; these have none.
    let car = acquisition::meet(story, 0, start);
    let (listing, vehicle) = (car.listing_id.as_str(), car.vehicle_id.as_str());
    let stay = story.between(MIN_STAY_DAYS, MAX_STAY_DAYS);
    create(story, &car);
    let mut asked = car.worth * story.between(MIN_ASKING_SHARE, MAX_ASKING_SHARE);
    set(story, &car, asked, "market");
    let urls = listing::pictures(&car);
    let photos = urls.len() as u64;
    story.tell(
        "inventory",
        "PhotosUploaded",
        json!({"listingId": listing, "photoUrls": urls, "uploadedAt": story.at(), "vehicleId": vehicle}),
    );
    story.fact(Fact::Photographed { listing: listing.to_owned(), photos });
    story.tell(
        "inventory",
        "ListingPublished",
        json!({"listingId": listing, "publishedAt": story.at(), "visibility": "public", "vehicleId": vehicle}),
    );
    story.fact(Fact::Published { listing: listing.to_owned() });
    let lowered_after = stay * 0.6;
    story.days(lowered_after, lowered_after);
    story.sleep();
    if story.chance(0.5) {
        asked *= MARKDOWN;
        set(story, &car, asked, "aging");
    }
    story.days(stay - lowered_after, stay - lowered_after);
    story.sleep();
    story.tell(
        "inventory",
        "ListingDeactivated",
        json!({"listingId": listing, "deactivatedAt": story.at(), "reason": "sold elsewhere", "vehicleId": vehicle}),
    );
    story.fact(Fact::Withdrawn { listing: listing.to_owned() });
}

fn create(story: &mut Story<'_>, car: &Car) {
    let City { name: city, province, country, latitude, longitude, .. } = *car.city;
    let (dealer, dealer_name) = *story.pick(&DEALERS);
    let title = format!("{} {} {} {}", car.year, car.model.make, car.model.model, car.trim);
    let mut data = car.details.clone();
    data["listingId"] = json!(car.listing_id);
    data["createdAt"] = json!(story.at());
    data["description"] = json!(format!("{title} in {} condition, {} km.", car.condition, car.mileage));
    data["title"] = json!(title);
    data["dealerId"] = json!(dealer);
    data["dealerName"] = json!(dealer_name);
    data["city"] = json!(city);
    data["province"] = json!(province);
    data["country"] = json!(country);
    data["latitude"] = json!(latitude + story.between(-0.05, 0.05));
    data["longitude"] = json!(longitude + story.between(-0.05, 0.05));
    story.tell("inventory", "VehicleListingCreated", data);
    story.fact(listing::listed(car));
}

fn set(story: &mut Story<'_>, car: &Car, price: f64, strategy: &str) {
    let price = Story::round(price, 10.0);
    let data = json!({"listingId": car.listing_id, "price": price, "pricingStrategy": strategy, "currency": "CAD", "vehicleId": car.vehicle_id});
    story.tell("inventory", "PriceSet", data);
    story.fact(Fact::Priced { listing: car.listing_id.clone(), price });
}
