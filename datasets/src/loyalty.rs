//! The loyalty programme, a system of its own: points for what customers buy.
//!
//! Assumed: about as many movements a day as vehicles bought; a third of them spends points.

use serde_json::json;

use crate::story::Story;

const LOYALTY: &str = "loyalty";
const MOVEMENTS_PER_VEHICLE: f64 = 1.0;
const PROGRAMME: (&str, &str) = ("prg-forecourt", "Forecourt Miles");
const REWARDS: [(&str, &str, i64); 3] =
    [("rwd-wash", "Car wash", 200), ("rwd-oil", "Oil change", 900), ("rwd-tires", "Tire storage", 1_500)];

/// A day of the programme.
pub(crate) fn day(story: &mut Story<'_>, day: u32, vehicles_per_day: f64) {
    let midnight = story.now();
    story.wait(20.0, 40.0);
    let (programme, name) = PROGRAMME;
    if day == 0 {
        story.tell(LOYALTY, "LoyaltyTemplateUsed", json!({"templateId": "tpl-1", "templateName": "Points per dollar", "businessId": "forecourt", "programId": programme, "customized": true, "industry": "automotive"}));
        about(
            story,
            "LoyaltyProgramCreated",
            programme,
            json!({"programName": name, "programStatus": "DRAFT", "createdBy": "staff-03", "templateId": "tpl-1"}),
        );
        about(
            story,
            "LoyaltyProgramActivated",
            programme,
            json!({"programName": name, "ruleType": "SPEND", "ruleConfig": {"pointsPerDollar": 1}}),
        );
        about(
            story,
            "LoyaltyProgramCreated",
            "prg-old",
            json!({"programName": "Stamps", "programStatus": "ACTIVE", "createdBy": "staff-03"}),
        );
        about(
            story,
            "LoyaltyProgramPaused",
            "prg-old",
            json!({"programName": "Stamps", "pausedBy": "staff-03", "reason": "replaced"}),
        );
    }
    let customers = story.count(vehicles_per_day * MOVEMENTS_PER_VEHICLE).max(u32::from(day == 0) * 2);
    for number in 0..customers {
        story.jump(midnight);
        story.wait(0.0, 1_400.0);
        story.sleep();
        customer(story, day == 0 && number == 0);
    }
    story.jump(midnight);
}

/// Somebody joins, earns, and perhaps spends.
fn customer(story: &mut Story<'_>, everything: bool) {
    let (customer, enrolment) = (story.id("usr"), story.id("enr"));
    let (programme, name) = PROGRAMME;
    let method = *story.pick(&["AUTO", "SELF", "MANUAL"]);
    about(
        story,
        "CustomerEnrolled",
        &enrolment,
        json!({"customerId": customer, "programId": programme, "programName": name, "enrollmentMethod": method, "initialTierId": "tier-1"}),
    );
    let mut points = 0;
    for _ in 0..story.whole(1, 3) {
        story.days(0.1, 10.0);
        let earned = if everything { 1_200 } else { story.whole(20, 1_600) };
        points += earned;
        let until = story.later(365.0 * 24.0);
        about(
            story,
            "PointsEarned",
            &enrolment,
            json!({"customerId": customer, "programId": programme, "pointsEarned": earned, "totalPoints": points, "transactionId": story.id("lty"), "referenceType": "ORDER", "referenceId": story.id("ord"), "expiresAt": until}),
        );
        if points >= 1_000 && points - earned < 1_000 {
            about(
                story,
                "TierUpgraded",
                &enrolment,
                json!({"customerId": customer, "programId": programme, "toTierId": "tier-2", "tierName": "Silver", "tierLevel": 2, "qualifyingPoints": points, "fromTierId": "tier-1"}),
            );
        }
    }
    let (reward, title, cost) = *story.pick(&REWARDS[..if everything { 2 } else { 3 }]);
    if points >= cost && (everything || story.chance(0.5)) {
        story.days(0.1, 5.0);
        points -= cost;
        about(
            story,
            "PointsRedeemed",
            &enrolment,
            json!({"customerId": customer, "programId": programme, "pointsRedeemed": cost, "remainingPoints": points, "rewardId": reward, "rewardName": title, "transactionId": story.id("lty")}),
        );
    }
    if points > 0 && (everything || story.chance(0.05)) {
        story.days(5.0, 20.0);
        about(
            story,
            "PointsExpired",
            &enrolment,
            json!({"customerId": customer, "programId": programme, "pointsExpired": points, "remainingPoints": 0, "expirationDate": story.at()}),
        );
    }
}

/// These events say whom they are about in the envelope alone.
fn about(story: &mut Story<'_>, name: &'static str, id: &str, data: serde_json::Value) {
    story.tell_about(LOYALTY, name, json!(id), data);
}
