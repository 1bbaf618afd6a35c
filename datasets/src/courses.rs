//! The course platform, a system of its own: what mechanics and drivers learn.
//!
//! Orders are about a third of the vehicles bought. Assumed: one order of twenty is refunded, and of those who begin a
//! course two of five end it.

use serde_json::json;

use crate::{
    cars::{FIRST_NAMES, LAST_NAMES},
    story::Story,
};

const COURSES: &str = "courses";
const ORDERS_PER_VEHICLE: f64 = 0.3;
const REFUNDED: f64 = 0.05;
const ENDED: f64 = 0.4;
/// Title and price in CAD.
const TITLES: [(&str, i64); 5] = [
    ("Winter driving", 89),
    ("Owning an electric car", 59),
    ("Brakes and tires at home", 120),
    ("Buying used with open eyes", 49),
    ("Detailing like a shop", 75),
];

/// A day of the course platform.
pub(crate) fn day(story: &mut Story<'_>, day: u32, vehicles_per_day: f64) {
    let midnight = story.now();
    story.wait(20.0, 40.0);
    if day == 0 {
        open(story);
    }
    let orders = story.count(vehicles_per_day * ORDERS_PER_VEHICLE).max(u32::from(day == 0) * 4);
    for number in 0..orders {
        story.jump(midnight);
        story.wait(0.0, 1_400.0);
        story.sleep();
        order(story, (day == 0).then_some(number));
    }
    story.jump(midnight);
}

fn open(story: &mut Story<'_>) {
    let (policy, old) = ("pol-30", "pol-14");
    for (id, name, days) in [(old, "Fourteen days", 14), (policy, "Thirty days", 30)] {
        story.tell(
            COURSES,
            "PolicyCreated",
            json!({"policyId": id, "name": name, "type": "refund", "refundPeriodDays": days}),
        );
    }
    for (number, (title, price)) in TITLES.iter().enumerate() {
        let course = format!("crs-{number}");
        story.tell(
            COURSES,
            "CourseCreated",
            json!({"courseId": course, "title": title, "instructorId": format!("ins-{number}"), "policyId": old}),
        );
        story.tell(
            COURSES,
            "CoursePolicyChanged",
            json!({"courseId": course, "oldPolicyId": old, "newPolicyId": policy}),
        );
        story.tell(
            COURSES,
            "CourseUpdated",
            json!({"courseId": course, "title": title, "description": "Six lessons with exercises.", "price": price}),
        );
    }
    story.tell(COURSES, "PolicyDeprecated", json!({"policyId": old, "name": "Fourteen days"}));
    story.tell(COURSES, "PolicyUpdated", json!({"policyId": policy, "newConditions": {"progressBelow": 50}}));
    story.tell(
        COURSES,
        "CourseCreated",
        json!({"courseId": "crs-99", "title": "Carburettors", "instructorId": "ins-0", "policyId": policy}),
    );
    story.tell(COURSES, "CourseDeprecated", json!({"courseId": "crs-99", "title": "Carburettors"}));
}

/// Somebody orders a course. The first of the first day go through everything that can happen.
fn order(story: &mut Story<'_>, first: Option<u32>) {
    let is = |number: u32| first == Some(number);
    let (user, order) = (story.id("stu"), story.id("cor"));
    let (first_name, last_name) = (*story.pick(&FIRST_NAMES), *story.pick(&LAST_NAMES));
    let email = |host: &str| format!("{}.{}@{host}.example", first_name.to_lowercase(), last_name.to_lowercase());
    story.tell(
        COURSES,
        "UserRegistered",
        json!({"userId": user, "email": email("learn"), "name": format!("{first_name} {last_name}")}),
    );
    if is(0) || story.chance(0.2) {
        story.tell(COURSES, "UserProfileUpdated", json!({"userId": user, "profileData": {"language": "en"}}));
        story.tell(
            COURSES,
            "UserEmailChanged",
            json!({"userId": user, "oldEmail": email("learn"), "newEmail": email("mail")}),
        );
    }
    let number = story.whole(0, TITLES.len() as i64 - 1).unsigned_abs() as usize;
    let course = format!("crs-{number}");
    story.tell(
        COURSES,
        "OrderPlaced",
        json!({"orderId": order, "userId": user, "courseIds": [course], "totalAmount": TITLES[number].1}),
    );
    story.wait(1.0, 20.0);
    if is(1) || story.chance(0.04) {
        story.tell(COURSES, "OrderCancelled", json!({"orderId": order, "userId": user}));
        return;
    }
    let access = story.id("acs");
    story.tell(
        COURSES,
        "OrderPaid",
        json!({"orderId": order, "userId": user, "courseIds": [course], "paymentId": story.id("pay")}),
    );
    story.tell(COURSES, "CourseAccessGranted", json!({"accessId": access, "userId": user, "courseId": course}));
    if is(2) || story.chance(REFUNDED) {
        story.days(0.5, 9.0);
        story.tell(
            COURSES,
            "OrderRefunded",
            json!({"orderId": order, "userId": user, "courseIds": [course], "refundReason": "not what I expected"}),
        );
        story.tell(
            COURSES,
            "AccessRevoked",
            json!({"accessId": access, "userId": user, "courseId": course, "reason": "refunded"}),
        );
        return;
    }
    let ends = is(0) || story.chance(ENDED);
    let lessons = if ends { 6 } else { story.whole(1, 5) };
    for lesson in 1..=lessons {
        story.days(0.3, 3.0);
        story.sleep();
        let progress = (f64::from(i32::try_from(lesson).unwrap_or(6)) / 6.0 * 100.0).round();
        story.tell(
            COURSES,
            "ProgressUpdated",
            json!({"accessId": access, "userId": user, "courseId": course, "progress": progress}),
        );
    }
    if ends {
        story.tell(COURSES, "CourseCompleted", json!({"accessId": access, "userId": user, "courseId": course}));
    } else if is(3) || story.chance(0.3) {
        story.days(20.0, 40.0);
        story.tell(
            COURSES,
            "AccessExpired",
            json!({"accessId": access, "userId": user, "courseId": course, "expiredAt": story.at()}),
        );
    }
}
