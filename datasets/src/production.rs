//! From the factory gate to the decision to sell.

use serde_json::{Value, json};

use crate::{car::Car, listing, story::Story, truth::Fact};

/// Points of the inspection.
const POINTS: i64 = 210;
const REPAIRS: [(&str, &str, f64); 5] = [
    ("brakes", "safety", 420.0),
    ("tires", "safety", 760.0),
    ("paint", "cosmetic", 350.0),
    ("windshield", "safety", 480.0),
    ("battery", "mechanical", 260.0),
];

/// Recondition the vehicle; whether it will be sold to the public.
pub(crate) fn recondition(story: &mut Story<'_>, car: &mut Car) -> bool {
    let vehicle = car.vehicle_id.clone();
    let facility = format!("fac-{:02}", story.whole(1, 3));
    story.hours(6.0, 30.0);
    car.mileage += story.whole(5, 60);
    story.tell(
        "production",
        "VehicleReceivedAtFacility",
        json!({"vehicleId": vehicle, "facilityId": facility, "receivedAt": story.at(), "mileageIn": car.mileage}),
    );
    story.hours(4.0, 60.0);
    let job = story.id("job");
    let until = story.later(72.0);
    let began = story.now();
    story.tell(
        "production",
        "ProductionStarted",
        json!({"productionJobId": job, "vehicleId": vehicle, "startedAt": story.at(), "estimatedCompletion": until, "facilityId": facility}),
    );
    for point in 1..=POINTS {
        story.wait(0.2, 1.5);
        let passed = story.chance(0.985);
        let notes = if passed { Value::Null } else { json!("needs repair") };
        let status = if passed { "passed" } else { "failed" };
        let data = json!({"inspectionPointId": format!("{job}-{point}"), "pointNumber": point, "status": status, "notes": notes, "vehicleId": vehicle, "productionJobId": job});
        story.tell("production", "InspectionPointCompleted", data);
    }
    let inspector = format!("insp-{:02}", story.whole(1, 12));
    repair(story, &vehicle);
    story.tell(
        "production",
        "SafetyInspectionPassed",
        json!({"vehicleId": vehicle, "inspectorId": inspector, "passedAt": story.at()}),
    );
    story.hours(1.0, 4.0);
    story.tell(
        "production",
        "DetailingCompleted",
        json!({"vehicleId": vehicle, "detailedAt": story.at(), "detailLevel": "full"}),
    );
    let urls = listing::pictures(car);
    let photos = urls.len();
    story.wait(20.0, 60.0);
    story.tell(
        "production",
        "VehiclePhotographed",
        json!({"vehicleId": vehicle, "photoSessionId": story.id("pho"), "photoCount": photos, "photoUrls": urls}),
    );
    let took = story.now() - began;
    story.tell(
        "production",
        "QualityCheckCompleted",
        json!({"vehicleId": vehicle, "qualityScore": story.whole(82, 100), "inspectorId": inspector, "productionJobId": job, "facilityId": facility}),
    );
    story.fact(Fact::Produced { took });
    certify(story, car)
}

fn repair(story: &mut Story<'_>, vehicle: &str) {
    let order = story.id("wrk");
    story.hours(1.0, 12.0);
    story.tell(
        "production",
        "ReconditioningStarted",
        json!({"vehicleId": vehicle, "workOrderId": order, "startedAt": story.at()}),
    );
    for _ in 0..story.whole(1, 4) {
        let item = story.id("rep");
        let (category, severity, cost) = *story.pick(&REPAIRS);
        story.tell(
            "production",
            "RepairItemIdentified",
            json!({"repairItemId": item, "category": category, "severity": severity, "estimatedCost": cost, "vehicleId": vehicle, "workOrderId": order}),
        );
        story.hours(0.5, 6.0);
        let actual = Story::round(cost * story.between(0.8, 1.4), 5.0);
        story.tell(
            "production",
            "RepairCompleted",
            json!({"repairItemId": item, "completedAt": story.at(), "actualCost": actual, "technicianId": format!("tech-{:02}", story.whole(1, 25)), "vehicleId": vehicle, "workOrderId": order}),
        );
    }
}

fn certify(story: &mut Story<'_>, car: &Car) -> bool {
    let vehicle = &car.vehicle_id;
    let certification = story.id("crt");
    story.tell(
        "production",
        "VehicleCertificationStarted",
        json!({"certificationId": certification, "vehicleId": vehicle, "startedAt": story.at()}),
    );
    let report = story.id("vhr");
    story.wait(1.0, 5.0);
    story.tell(
        "production",
        "VehicleHistoryReportGenerated",
        json!({"vehicleId": vehicle, "reportId": report, "reportUrl": format!("https://reports.example/{report}")}),
    );
    let accidents = i64::from(story.chance(0.14));
    let status = if accidents == 0 { "clean" } else { "accident reported" };
    story.tell(
        "production",
        "VehicleHistoryVerified",
        json!({"vehicleId": vehicle, "historyStatus": status, "accidentHistory": accidents, "ownerCount": story.whole(1, 3)}),
    );
    story.hours(1.0, 6.0);
    if car.is_kind(3) {
        story.tell(
            "production",
            "CertificationFailed",
            json!({"vehicleId": vehicle, "failureReasons": ["frame damage"], "failedAt": story.at(), "certificationId": certification}),
        );
        story.tell(
            "production",
            "VehicleRejectedForRetail",
            json!({"vehicleId": vehicle, "rejectionReasons": ["not certified"], "rejectedAt": story.at()}),
        );
        story.days(1.0, 5.0);
        story.tell(
            "production",
            "VehicleSentToWholesale",
            json!({"vehicleId": vehicle, "wholesaleChannel": "auction", "sentAt": story.at()}),
        );
        return false;
    }
    story.tell(
        "production",
        "VehicleCertified",
        json!({"vehicleId": vehicle, "certifiedAt": story.at(), "certificationNumber": story.id("cpo"), "certificationId": certification}),
    );
    story.tell(
        "production",
        "VehicleApprovedForRetail",
        json!({"vehicleId": vehicle, "approvedAt": story.at(), "targetPrice": Story::round(car.worth, 10.0)}),
    );
    true
}
