//! What goes on around the vehicles: campaigns, and the market's share as analysts estimate it.

use serde_json::json;

use crate::story::Story;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Campaigns begin, and periods are measured, this often; at least once in a history.
const PERIOD_DAYS: i64 = 7;
const CHANNELS: [&str; 3] = ["search", "social", "radio"];

/// Tell the office's events from `start` to `end`, for a market of this many vehicles.
pub(crate) fn run(story: &mut Story<'_>, start: i64, end: i64, vehicles: u32) {
    let mut day = start;
    let mut period = 0_i64;
    while day < end {
        // Early in its first hours, so that even a history of one day has it.
        story.jump(day);
        story.wait(60.0, 180.0);
        campaign(story, period, vehicles);
        measure(story, period, vehicles);
        period += 1;
        day += PERIOD_DAYS * MICROS_PER_DAY;
    }
}

fn campaign(story: &mut Story<'_>, period: i64, vehicles: u32) {
    let campaign = format!("cmp-{period:03}");
    let channel = *story.pick(&CHANNELS);
    story.tell("marketing", "MarketingCampaignLaunched", json!({"campaignId": campaign, "campaignName": format!("Week {}", period + 1), "launchedAt": story.at(), "channels": [channel, "email"]}));
    for _ in 0..(vehicles / 8).clamp(2, 400) {
        let person = story.id("usr");
        story.wait(0.1, 5.0);
        story.tell("marketing", "EmailSent", json!({"emailId": story.id("eml"), "recipientId": person, "template": "weekly", "sentAt": story.at(), "campaignId": campaign}));
        if story.chance(0.3) {
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
