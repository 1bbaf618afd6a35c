//! A seller meets the marketplace, and it buys the vehicle.

use schemas::field_type::format_timestamp;
use serde_json::json;

use crate::{
    car::Car,
    cars::{COLORS, CONDITIONS, FEATURES, INTERIORS, MODELS},
    listing,
    story::Story,
    truth::Fact,
};

/// What a car keeps of its worth when it is first sold, and then each year, by how well its kind keeps it. Assumptions
/// after published depreciation tables: about 20 % in the first year, 10 to 15 % in each later one, trucks least and
/// electric cars most.
const KEPT_AT_FIRST: f64 = 0.86;
const KEPT_PER_YEAR: [(&str, f64); 3] = [("Truck", 0.915), ("Van", 0.89), ("SUV", 0.90)];
const KEPT_PER_YEAR_ELSE: f64 = 0.88;
const KEPT_PER_YEAR_ELECTRIC: f64 = 0.85;
/// What each 10,000 km more than such a car usually has takes, or fewer give.
const KEPT_PER_10_000_KM: f64 = 0.975;
const USUAL_KM_PER_YEAR: f64 = 17_000.0;
/// What condition adds or takes.
const CONDITION: [(&str, f64); 3] = [("excellent", 1.04), ("good", 1.0), ("fair", 0.92)];
/// What a trim adds, per step.
const TRIM_STEP: f64 = 0.09;
/// No car is worth less.
const LEAST_WORTH: f64 = 2_500.0;
/// The oldest car that the marketplace buys, in years; most are much younger.
const OLDEST: f64 = 14.0;

/// A new vehicle and its seller, in a market that began at `start`.
pub(crate) fn meet(story: &mut Story<'_>, number: u32, start: i64) -> Car {
    let model = story.pick(&MODELS);
    let step = story.whole(0, model.trims.len() as i64 - 1);
    let trim = model.trims[usize::try_from(step).unwrap_or_default()];
    // Twice as many of three years as of ten.
    let age = 1.0 + (OLDEST - 1.0) * story.between(0.0, 1.0).powf(1.8);
    let usual = age * USUAL_KM_PER_YEAR;
    #[expect(clippy::cast_possible_truncation, reason = "kilometres and years of a car")]
    let (mileage, age) = ((usual * story.between(0.45, 1.0) * story.between(0.9, 1.6)) as i64, age.round() as i64);
    let condition = *story.pick(&CONDITIONS);
    let new = model.price * (1.0 + TRIM_STEP * step as f64);
    let per_year =
        KEPT_PER_YEAR.iter().find(|(body, _)| *body == model.body).map_or(KEPT_PER_YEAR_ELSE, |(_, kept)| *kept);
    let per_year = if model.fuel == "Electric" { KEPT_PER_YEAR_ELECTRIC } else { per_year };
    let of_condition = CONDITION.iter().find(|(name, _)| *name == condition).map_or(1.0, |(_, factor)| *factor);
    let unusual = (mileage as f64 - usual) / 10_000.0;
    let kept = KEPT_AT_FIRST * per_year.powf(age as f64) * KEPT_PER_10_000_KM.powf(unusual) * of_condition;
    let worth = (new * kept * story.between(0.95, 1.05)).max(LEAST_WORTH);
    let year: i64 = format_timestamp(start)[..4].parse().unwrap_or_default();
    let mut features: Vec<&str> = FEATURES.iter().filter(|_| story.chance(0.45)).copied().collect();
    features.sort_unstable();
    let vin: String = (0..17).map(|_| *story.pick(b"0123456789ABCDEFGHJKLMNPRSTUVWXYZ") as char).collect();
    let vehicle_id = story.id("veh");
    let color = *story.pick(&COLORS);
    let details = json!({
        "vehicleId": vehicle_id,
        "vin": vin,
        "make": model.make,
        "model": model.model,
        "trim": trim,
        "year": year - age,
        "mileage": mileage,
        "condition": condition,
        "bodyType": model.body,
        "fuelType": model.fuel,
        "transmission": if story.chance(0.92) { "Automatic" } else { "Manual" },
        "drivetrain": model.drivetrain,
        "engine": model.engine,
        "exteriorColor": color,
        "interiorColor": story.pick(&INTERIORS),
        "doors": if matches!(model.body, "Convertible") { 2 } else { 4 },
        "seats": model.seats,
        "features": features,
    });
    Car {
        number,
        listing_id: story.id("lst"),
        seller: story.id("usr"),
        buyer: story.id("usr"),
        model,
        trim,
        year: year - age,
        mileage,
        condition,
        color,
        city: story.city(),
        worth,
        vehicle_id,
        details,
    }
}

/// Ask for an offer and get it; its id and amount.
fn offer(story: &mut Story<'_>, car: &Car) -> (String, f64) {
    story.tell(
        "acquisition",
        "OfferRequested",
        json!({"userId": car.seller, "vehicleId": car.vehicle_id, "timestamp": story.at()}),
    );
    story.wait(3.0, 15.0);
    let mut details = car.details.clone();
    details["userId"] = json!(car.seller);
    details["photos"] = json!(&listing::pictures(car)[..1]);
    story.tell("acquisition", "VehicleDetailsSubmitted", details);
    let offer_id = story.id("off");
    let amount = car.worth * story.between(0.78, 0.86);
    let rounded = Story::round(amount, 50.0);
    let valid_until = story.later(7.0 * 24.0);
    story.wait(0.3, 0.5);
    story.tell(
        "acquisition",
        "AIOfferGenerated",
        json!({"offerId": offer_id, "offerAmount": rounded, "vehicleId": car.vehicle_id, "expiryDate": valid_until}),
    );
    story.fact(Fact::Offered { amount: rounded });
    story.tell(
        "acquisition",
        "FirmOfferCreated",
        json!({"offerId": offer_id, "offerAmount": rounded, "validUntil": valid_until, "vehicleId": car.vehicle_id}),
    );
    (offer_id, amount)
}

/// Sellers who do not sell: about as many as those who do.
pub(crate) fn offers_that_fail(story: &mut Story<'_>, number: u32, start: i64) {
    let before = story.now();
    for attempt in 0..2 {
        if attempt != number % 2 && !story.chance(0.3) {
            continue;
        }
        let car = meet(story, number, start);
        let (offer_id, _) = offer(story, &car);
        if attempt == 0 {
            story.hours(1.0, 48.0);
            let reason = *story.pick(&["price too low", "kept the vehicle", "sold elsewhere"]);
            let rejected =
                json!({"offerId": offer_id, "rejectedAt": story.at(), "reason": reason, "vehicleId": car.vehicle_id});
            story.tell("acquisition", "OfferRejected", rejected);
            story.fact(Fact::OfferRejected);
        } else {
            story.days(7.0, 7.1);
            let expired = json!({"offerId": offer_id, "expiredAt": story.at(), "vehicleId": car.vehicle_id});
            story.tell("acquisition", "OfferExpired", expired);
            story.fact(Fact::OfferExpired);
        }
        story.jump(before);
    }
}

/// From the offer to the keys; what the vehicle cost.
pub(crate) fn buy(story: &mut Story<'_>, car: &Car) -> f64 {
    let vehicle = &car.vehicle_id;
    let (offer_id, mut amount) = offer(story, car);
    story.hours(0.5, 48.0);
    story.tell(
        "acquisition",
        "OfferAccepted",
        json!({"offerId": offer_id, "acceptedAt": story.at(), "customerId": car.seller, "vehicleId": vehicle}),
    );
    story.fact(Fact::OfferAccepted);
    let inspector = format!("insp-{:02}", story.whole(1, 12));
    let visit = story.later(36.0);
    let appointment = story.id("apt");
    story.tell(
        "acquisition",
        "AppraisalScheduled",
        json!({"appointmentId": appointment, "scheduledDate": visit, "location": car.city.name, "inspectorId": inspector, "offerId": offer_id, "vehicleId": vehicle}),
    );
    story.hours(30.0, 60.0);
    let inspection = story.id("ins");
    story.tell(
        "acquisition",
        "VehicleInspectionStarted",
        json!({"inspectionId": inspection, "vehicleId": vehicle, "inspectorId": inspector, "startTime": story.at()}),
    );
    story.wait(5.0, 12.0);
    let worn = car.is_kind(1) || story.chance(0.15);
    let issues = if worn { json!(["worn tires"]) } else { json!([]) };
    story.tell(
        "acquisition",
        "VehicleInspected",
        json!({"inspectionId": inspection, "checkpointsPassed": story.whole(30, 40), "issues": issues, "vehicleId": vehicle}),
    );
    story.wait(5.0, 10.0);
    story.tell(
        "acquisition",
        "InspectionCompleted",
        json!({"inspectionId": inspection, "completedAt": story.at(), "finalCondition": car.condition, "vehicleId": vehicle}),
    );
    story.tell(
        "acquisition",
        "ConditionAssessed",
        json!({"inspectionId": inspection, "actualCondition": car.condition, "discrepanciesFound": worn, "vehicleId": vehicle}),
    );
    if worn {
        let adjusted = amount * story.between(0.93, 0.98);
        let data = json!({"offerId": offer_id, "originalAmount": Story::round(amount, 50.0), "adjustedAmount": Story::round(adjusted, 50.0), "reason": "worn tires", "vehicleId": vehicle});
        story.tell("acquisition", "OfferAdjusted", data);
        amount = adjusted;
    }
    let paid = Story::round(amount, 50.0);
    story.wait(2.0, 20.0);
    story.tell(
        "acquisition",
        "FinalOfferConfirmed",
        json!({"offerId": offer_id, "finalAmount": paid, "confirmedAt": story.at(), "vehicleId": vehicle}),
    );
    let agreement = story.id("agr");
    let purchase = story.id("pur");
    let payment = story.id("pay");
    story.wait(5.0, 30.0);
    story.tell(
        "acquisition",
        "PurchaseAgreementSigned",
        json!({"agreementId": agreement, "vehicleId": vehicle, "sellerId": car.seller, "amount": paid}),
    );
    story.tell(
        "acquisition",
        "VehiclePurchased",
        json!({"purchaseId": purchase, "vehicleId": vehicle, "amount": paid, "purchaseDate": story.at(), "offerId": offer_id, "sellerId": car.seller}),
    );
    story.tell(
        "acquisition",
        "PaymentInitiated",
        json!({"paymentId": payment, "amount": paid, "paymentMethod": "instant transfer", "purchaseId": purchase, "vehicleId": vehicle}),
    );
    story.tell(
        "acquisition",
        "InstantPaymentProcessed",
        json!({"paymentId": payment, "amount": paid, "bankAccountId": story.id("acc"), "processedAt": story.at(), "sellerId": car.seller, "purchaseId": purchase, "vehicleId": vehicle}),
    );
    story.wait(1.0, 10.0);
    story.tell(
        "acquisition",
        "FundsTransferred",
        json!({"paymentId": payment, "transferredAt": story.at(), "confirmationNumber": story.id("cnf"), "purchaseId": purchase, "vehicleId": vehicle}),
    );
    let pickup = story.id("pku");
    let when = story.later(24.0);
    story.tell(
        "acquisition",
        "VehiclePickupScheduled",
        json!({"pickupId": pickup, "scheduledDate": when, "location": car.city.name, "driverId": format!("drv-{:02}", story.whole(1, 20)), "vehicleId": vehicle}),
    );
    story.hours(12.0, 30.0);
    story.tell(
        "acquisition",
        "VehicleCollected",
        json!({"pickupId": pickup, "collectedAt": story.at(), "vehicleCondition": car.condition, "mileageReading": car.mileage, "vehicleId": vehicle}),
    );
    story.tell(
        "delivery",
        "TransportationArranged",
        json!({"transportId": story.id("trn"), "customerId": car.seller, "pickupAddress": {"city": car.city.name, "province": car.city.province}, "arrangedAt": story.at(), "vehicleId": vehicle}),
    );
    amount
}
