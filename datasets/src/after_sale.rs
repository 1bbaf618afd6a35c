//! Delivery, the trial, and what comes after.

use serde_json::{Value, json};

use crate::{car::Car, sale::Sale, story::Story, truth::Fact};

/// Days of the trial, and its kilometres.
const TRIAL_DAYS: i64 = 10;
const TRIAL_KM: i64 = 750;

/// From the handover to the last claim.
pub(crate) fn deliver_and_keep(story: &mut Story<'_>, car: &Car, sale: &Sale) {
    deliver(story, car, sale);
    warranty(story, car);
    let ends = trial(story, car, sale);
    feedback(story, car);
    support(story, car);
    story.jump(story.now().max(ends));
    if car.is_kind(0) || story.chance(0.1) {
        claim(story, car);
    }
}

fn deliver(story: &mut Story<'_>, car: &Car, sale: &Sale) {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    let picks_up = car.is_kind(4) || story.chance(0.2);
    let method = if picks_up { "pickup" } else { "home delivery" };
    story.tell("delivery", "DeliveryMethodSelected", json!({"transactionId": sale.transaction_id, "deliveryMethod": method, "selectedAt": story.at(), "customerId": customer, "vehicleId": vehicle}));
    story.hours(4.0, 30.0);
    if picks_up {
        story.tell(
            "delivery",
            "VehiclePreparedForDelivery",
            json!({"vehicleId": vehicle, "preparedAt": story.at(), "preparedBy": "prep-01"}),
        );
        story.tell("delivery", "CustomerPickupCompleted", json!({"pickupId": story.id("pku"), "pickedUpAt": story.at(), "locationId": "loc-01", "customerId": customer, "vehicleId": vehicle}));
        return;
    }
    let delivery = story.id("dlv");
    let address = json!({"city": car.city.name, "province": car.city.province});
    let date = story.later(48.0);
    story.tell("delivery", "DeliveryScheduled", json!({"deliveryId": delivery, "scheduledDate": date, "timeWindow": "09:00-12:00", "address": address, "customerId": customer, "vehicleId": vehicle, "transactionId": sale.transaction_id}));
    story.tell(
        "delivery",
        "DeliveryAddressVerified",
        json!({"deliveryId": delivery, "address": address, "verifiedAt": story.at(), "customerId": customer}),
    );
    story.tell(
        "delivery",
        "DeliveryDateConfirmed",
        json!({"deliveryId": delivery, "confirmedDate": date, "confirmedAt": story.at()}),
    );
    story.tell(
        "delivery",
        "VehiclePreparedForDelivery",
        json!({"vehicleId": vehicle, "preparedAt": story.at(), "preparedBy": "prep-02", "deliveryId": delivery}),
    );
    story.tell(
        "delivery",
        "DeliveryAssigned",
        json!({"deliveryId": delivery, "driverId": format!("drv-{:02}", story.whole(1, 20)), "assignedAt": story.at()}),
    );
    story.hours(20.0, 50.0);
    let arrival = story.later(3.0);
    story.tell(
        "delivery",
        "VehicleInTransit",
        json!({"deliveryId": delivery, "vehicleId": vehicle, "departedAt": story.at(), "estimatedArrival": arrival}),
    );
    story.hours(1.0, 5.0);
    story.tell("delivery", "DeliveryCompleted", json!({"deliveryId": delivery, "deliveredAt": story.at(), "deliveryConfirmationSignature": story.id("sig"), "customerId": customer, "vehicleId": vehicle}));
    story.tell("delivery", "VehicleHandedOver", json!({"deliveryId": delivery, "vehicleId": vehicle, "handoverAt": story.at(), "mileage": car.mileage + 40, "customerId": customer}));
    story.tell(
        "delivery",
        "DeliveryConfirmed",
        json!({"deliveryId": delivery, "confirmedAt": story.at(), "customerId": customer}),
    );
    story.tell(
        "delivery",
        "DeliveryFeedbackRequested",
        json!({"deliveryId": delivery, "requestedAt": story.at(), "customerId": customer}),
    );
}

fn warranty(story: &mut Story<'_>, car: &Car) {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    let end = story.later(90.0 * 24.0);
    story.tell("warranty", "WarrantyIncluded", json!({"warrantyId": format!("war-{vehicle}"), "vehicleId": vehicle, "coverage": "powertrain", "startDate": story.at(), "endDate": end, "customerId": customer}));
    let offer = story.id("wof");
    story.tell("warranty", "ExtendedWarrantyOffered", json!({"offerId": offer, "coverageLevels": ["silver", "gold"], "offeredAt": story.at(), "vehicleId": vehicle, "customerId": customer}));
    if car.is_kind(0) || story.chance(0.25) {
        story.tell("warranty", "ExtendedWarrantyPurchased", json!({"warrantyId": story.id("war"), "coverageLevel": "gold", "cost": 1_499, "purchasedAt": story.at(), "offerId": offer, "vehicleId": vehicle, "customerId": customer}));
    }
}

/// The trial and its end; when it ended.
fn trial(story: &mut Story<'_>, car: &Car, sale: &Sale) -> i64 {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    let trial = story.id("tri");
    let end = story.later(TRIAL_DAYS as f64 * 24.0);
    let began = story.now();
    story.tell("trial", "TestOwnershipStarted", json!({"trialId": trial, "vehicleId": vehicle, "customerId": customer, "startDate": story.at(), "endDate": end, "transactionId": sale.transaction_id}));
    story.hours(1.0, 20.0);
    let mut driven = story.whole(5, 60);
    story.tell(
        "trial",
        "TestDriveCompleted",
        json!({"trialId": trial, "mileageDriven": driven, "driveDate": story.at(), "vehicleId": vehicle}),
    );
    let leaves = car.is_kind(8) || car.is_kind(9) || story.chance(0.06);
    let days = if leaves { story.whole(2, TRIAL_DAYS - 1) } else { TRIAL_DAYS };
    for day in 1..=days {
        story.hours(23.0, 25.0);
        driven = (driven + story.whole(0, 60)).min(TRIAL_KM);
        story.tell(
            "trial",
            "TestPeriodDayElapsed",
            json!({"trialId": trial, "dayNumber": day, "currentMileage": car.mileage + driven, "vehicleId": vehicle}),
        );
        if day % 3 == 1 {
            story.tell("trial", "MileageTracked", json!({"trialId": trial, "mileage": car.mileage + driven, "trackedAt": story.at(), "vehicleId": vehicle}));
        }
    }
    if leaves {
        leave(story, car, sale, &trial, car.mileage + driven);
    } else {
        story.tell("trial", "TestPeriodExpired", json!({"trialId": trial, "expiredAt": story.at(), "finalMileage": car.mileage + driven, "vehicleId": vehicle}));
        story.tell("trial", "VehicleKept", json!({"trialId": trial, "keptAt": story.at(), "finalDecision": "kept", "vehicleId": vehicle, "customerId": customer}));
    }
    let ended = story.now();
    // What the customer says of it begins while the trial still runs.
    story.jump(began);
    ended
}

fn leave(story: &mut Story<'_>, car: &Car, sale: &Sale, trial: &str, mileage: i64) {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    if car.is_kind(9) {
        let exchange = story.id("exc");
        let other = story.id("veh");
        story.tell("trial", "ExchangeRequested", json!({"exchangeId": exchange, "vehicleId": vehicle, "customerId": customer, "desiredVehicleId": other, "requestedAt": story.at(), "trialId": trial}));
        story.hours(5.0, 30.0);
        story.tell(
            "trial",
            "ExchangeApproved",
            json!({"exchangeId": exchange, "approvedAt": story.at(), "newVehicleId": other, "vehicleId": vehicle}),
        );
        story.hours(20.0, 60.0);
        story.tell(
            "trial",
            "VehicleExchanged",
            json!({"exchangeId": exchange, "exchangedAt": story.at(), "newVehicleId": other, "vehicleId": vehicle}),
        );
        return;
    }
    let given_back = story.id("ret");
    let reason = *story.pick(&["too small", "changed my mind", "noise", "found another"]);
    story.tell("trial", "ReturnRequested", json!({"returnId": given_back, "vehicleId": vehicle, "customerId": customer, "requestedAt": story.at(), "reason": reason, "trialId": trial}));
    story.hours(10.0, 40.0);
    story.tell("trial", "ReturnConditionVerified", json!({"returnId": given_back, "inspectionResult": "passed", "noAccidents": true, "noModifications": true, "verifiedAt": story.at(), "vehicleId": vehicle}));
    let fees = 120.0;
    story.tell("trial", "RefundApproved", json!({"returnId": given_back, "approvedAt": story.at(), "refundAmount": Story::round(sale.price - fees, 10.0), "customerId": customer}));
    story.tell("trial", "VehicleReturned", json!({"returnId": given_back, "returnedAt": story.at(), "returnMileage": mileage, "vehicleId": vehicle, "listingId": car.listing_id}));
    story.fact(Fact::Returned);
    story.hours(1.0, 40.0);
    story.tell("trial", "RefundProcessed", json!({"refundId": story.id("ref"), "amount": Story::round(sale.price - fees, 10.0), "feesDeducted": fees, "processedAt": story.at(), "returnId": given_back, "customerId": customer}));
}

fn feedback(story: &mut Story<'_>, car: &Car) {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    let happy = if story.chance(0.75) { story.whole(8, 10) } else { story.whole(0, 8) };
    let stars = (happy + 1) / 2;
    story.days(1.0, 4.0);
    story.tell(
        "support",
        "ReviewRequested",
        json!({"requestId": story.id("rrq"), "customerId": customer, "vehicleId": vehicle, "requestedAt": story.at()}),
    );
    story.hours(1.0, 40.0);
    if car.number < crate::car::KINDS || story.chance(0.5) {
        let comment = *story.pick(&["Smooth from start to end.", "Good car, slow paperwork.", "Would buy again."]);
        story.tell("support", "ReviewSubmitted", json!({"reviewId": story.id("rev"), "rating": stars.clamp(1, 5), "comments": comment, "submittedAt": story.at(), "customerId": customer, "vehicleId": vehicle}));
        story.fact(Fact::Reviewed { stars: stars.clamp(1, 5) });
        story.tell("support", "RatingProvided", json!({"ratingId": story.id("rat"), "score": stars.clamp(1, 5), "category": "delivery", "providedAt": story.at(), "customerId": customer}));
        story.fact(Fact::Rated { score: stars.clamp(1, 5) });
    }
    if car.number < crate::car::KINDS || story.chance(0.6) {
        let answers: Vec<Value> =
            vec![json!({"question": "nps", "answer": happy}), json!({"question": "heard_of_us", "answer": "friends"})];
        story.tell("support", "SurveyCompleted", json!({"surveyId": story.id("sur"), "responses": answers, "completedAt": story.at(), "customerId": customer}));
        story.fact(Fact::Surveyed { answer: happy });
    }
    if car.is_kind(5) || story.chance(0.1) {
        story.tell("support", "FeedbackReceived", json!({"feedbackId": story.id("fee"), "type": "suggestion", "message": "More photos of the trunk, please.", "receivedAt": story.at(), "customerId": customer}));
    }
}

fn support(story: &mut Story<'_>, car: &Car) {
    if !(car.is_kind(1) || story.chance(0.2)) {
        return;
    }
    let customer = &car.buyer;
    let ticket = story.id("tic");
    let advisor = format!("adv-{:02}", story.whole(1, 15));
    let priority = *story.pick(&["low", "normal", "normal", "high"]);
    story.tell("support", "CustomerInquiryReceived", json!({"inquiryId": story.id("inq"), "customerId": customer, "channel": "chat", "message": "Where do I find the second key?", "receivedAt": story.at(), "ticketId": ticket}));
    story.tell("support", "SupportTicketCreated", json!({"ticketId": ticket, "customerId": customer, "issue": "second key", "priority": priority, "createdAt": story.at()}));
    story.wait(10.0, 300.0);
    story.tell("support", "AdvisorResponseSent", json!({"responseId": story.id("rsp"), "ticketId": ticket, "message": "We are looking into it.", "sentAt": story.at(), "advisorId": advisor, "customerId": customer}));
    if car.is_kind(1) || story.chance(0.2) {
        story.tell("support", "IssueEscalated", json!({"ticketId": ticket, "escalatedAt": story.at(), "escalationReason": "no answer from facility", "assignedTo": "adv-lead"}));
        let when = story.later(20.0);
        story.tell(
            "support",
            "CallbackScheduled",
            json!({"callbackId": story.id("cal"), "scheduledTime": when, "customerId": customer, "ticketId": ticket}),
        );
    }
    story.hours(2.0, 60.0);
    story.tell(
        "support",
        "IssueResolved",
        json!({"ticketId": ticket, "resolvedAt": story.at(), "resolution": "key sent", "advisorId": advisor}),
    );
}

fn claim(story: &mut Story<'_>, car: &Car) {
    let claim = story.id("clm");
    story.days(5.0, 12.0);
    story.tell("warranty", "WarrantyClaimSubmitted", json!({"claimId": claim, "warrantyId": format!("war-{}", car.vehicle_id), "issue": "water pump", "submittedAt": story.at(), "vehicleId": car.vehicle_id}));
    story.hours(4.0, 40.0);
    story.tell("warranty", "WarrantyClaimApproved", json!({"claimId": claim, "approvedAt": story.at(), "coverageAmount": story.whole(20, 180) * 10, "warrantyId": format!("war-{}", car.vehicle_id)}));
    let when = story.later(50.0);
    story.tell("warranty", "WarrantyServiceScheduled", json!({"serviceId": story.id("svc"), "scheduledDate": when, "serviceCenter": format!("{} Service", car.city.name), "claimId": claim, "vehicleId": car.vehicle_id}));
}
