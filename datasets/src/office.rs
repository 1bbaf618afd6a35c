//! What goes on around the vehicles: campaigns, and the market's share as analysts estimate it.

use serde_json::json;

use crate::story::Story;

/// Campaigns begin, and periods are measured, every so many days, the first included.
const PERIOD_DAYS: u32 = 7;
const CHANNELS: [&str; 3] = ["search", "social", "radio"];

/// Tell a day of the office, for a market of this many vehicles.
pub(crate) fn day(story: &mut Story<'_>, day: u32, vehicles: u32) {
    if !day.is_multiple_of(PERIOD_DAYS) {
        return;
    }
    // Early in its first hours, so that even a history of one day has it.
    let midnight = story.now();
    story.wait(60.0, 180.0);
    let period = i64::from(day / PERIOD_DAYS);
    campaign(story, period, vehicles);
    measure(story, period, vehicles);
    story.jump(midnight);
}

/// Somebody saves a search, is told of a car, and gives the search up. It ends by itself soon, so that no one is told of a
/// market's past.
pub(crate) fn alert(story: &mut Story<'_>, day: u32, midnight: i64) {
    const LASTS_HOURS: f64 = 6.0;
    if !day.is_multiple_of(PERIOD_DAYS) {
        return;
    }
    story.jump(midnight);
    story.wait(60.0, 180.0);
    let (alert, listing, found) = (story.id("alr"), story.id("lst"), story.id("mat"));
    story.tell("alerts", "SearchAlertCreated", json!({"alertId": alert, "search": "body_type=SUV&price_max=30000", "name": "A family car", "userId": story.id("usr"), "createdAt": story.at(), "expiresAt": story.later(LASTS_HOURS)}));
    story.wait(5.0, 20.0);
    story.tell(
        "alerts",
        "SearchAlertMatched",
        json!({"alertId": alert, "listingId": listing, "matchId": found, "price": 28_900, "matchedAt": story.at()}),
    );
    story.tell("alerts", "SearchAlertNotified", json!({"alertId": alert, "matchId": found, "listingId": listing, "delivered": true, "attempts": 1, "notifiedAt": story.at()}));
    story.wait(5.0, 20.0);
    story.tell("alerts", "SearchAlertDeleted", json!({"alertId": alert, "deletedAt": story.at()}));
}

fn campaign(story: &mut Story<'_>, period: i64, vehicles: u32) {
    let campaign = format!("cmp-{period:03}");
    let channel = *story.pick(&CHANNELS);
    story.tell("marketing", "MarketingCampaignLaunched", json!({"campaignId": campaign, "campaignName": format!("Week {}", period + 1), "launchedAt": story.at(), "channels": [channel, "email"]}));
    for recipient in 0..(vehicles / 8).clamp(2, 400) {
        let person = story.id("usr");
        story.wait(0.1, 5.0);
        story.tell("marketing", "EmailSent", json!({"emailId": story.id("eml"), "recipientId": person, "template": "weekly", "sentAt": story.at(), "campaignId": campaign}));
        if recipient == 0 || story.chance(0.3) {
            story.tell("marketing", "AdClicked", json!({"adId": format!("ad-{period:03}"), "customerId": person, "clickedAt": story.at(), "source": channel, "campaignId": campaign}));
            story.tell("marketing", "LandingPageVisited", json!({"pageId": format!("page-{period:03}"), "visitorId": person, "visitedAt": story.at(), "referralSource": channel, "campaignId": campaign}));
        }
    }
    let person = story.id("usr");
    let subscription = story.id("sub");
    story.tell("marketing", "SMSSent", json!({"smsId": story.id("sms"), "recipientId": person, "message": "New arrivals near you.", "sentAt": story.at(), "campaignId": campaign}));
    story.tell("marketing", "PushNotificationSent", json!({"notificationId": story.id("psh"), "recipientId": person, "message": "A price you follow dropped.", "sentAt": story.at(), "campaignId": campaign}));
    story.tell("marketing", "NewsletterSubscribed", json!({"subscriptionId": subscription, "email": format!("{person}@mail.example"), "subscribedAt": story.at(), "customerId": person}));
    story.tell("marketing", "PromotionalOfferViewed", json!({"offerId": format!("promo-{period:03}"), "customerId": person, "viewedAt": story.at(), "campaignId": campaign}));
    story.tell("marketing", "ReferralGenerated", json!({"referralId": story.id("rfl"), "referrerId": person, "referredEmail": "friend@mail.example", "generatedAt": story.at()}));
    story.tell(
        "marketing",
        "NewsletterUnsubscribed",
        json!({"subscriptionId": subscription, "unsubscribedAt": story.at(), "customerId": person}),
    );
}

/// What other systems of the marketplace record when a period closes. They count for themselves: their figures are
/// estimates beside the events, as a market's are.
fn measure(story: &mut Story<'_>, period: i64, vehicles: u32) {
    let name = format!("P{period:03}");
    let weekly = i64::from(vehicles) / 12 + story.whole(0, 4);
    story.tell("analytics", "InventoryCountUpdated", json!({"inventoryCount": weekly * 3, "availableCount": weekly * 2, "reservedCount": weekly, "timestamp": story.at()}));
    story.tell(
        "analytics",
        "SalesVolumeRecorded",
        json!({"period": name, "unitsSold": weekly, "revenue": weekly * 24_500, "recordedAt": story.at()}),
    );
    story.tell(
        "analytics",
        "OfferVolumeRecorded",
        json!({"period": name, "offersGenerated": weekly * 2, "offersAccepted": weekly, "recordedAt": story.at()}),
    );
    story.tell(
        "analytics",
        "ProductionRateCalculated",
        json!({"period": name, "vehiclesCompleted": weekly, "averageTimePerVehicle": 30.5, "calculatedAt": story.at()}),
    );
    story.tell("analytics", "MarketShareCalculated", json!({"period": name, "marketShare": 0.031, "competitorComparison": {"next": 0.027}, "calculatedAt": story.at()}));
    story.tell(
        "analytics",
        "CustomerSatisfactionScored",
        json!({"period": name, "nps": 54, "csat": 0.86, "reviewScore": 4.4, "scoredAt": story.at()}),
    );
}
