//! The dealers' marketplace, a system of its own: independent dealers who sell beside ours.
//!
//! About half as many listings a day as the marketplace buys vehicles. Assumed: four inquiries a listing, of which one in
//! three becomes a lead, and of the leads one in five a contract.

use serde_json::json;

use crate::{cars::MODELS, story::Story, truth::Fact};

const DEALERS: &str = "dealers";
const LISTINGS_PER_VEHICLE: f64 = 0.5;
const STORES: [&str; 6] =
    ["Prairie Autos", "Harbour Motors", "Capital Cars", "Maple Ridge Motors", "Northern Wheels", "Lakeside Auto"];
const COMMISSION: f64 = 0.045;

/// A day of the dealers.
pub(crate) fn day(story: &mut Story<'_>, day: u32, vehicles_per_day: f64) {
    let midnight = story.now();
    story.wait(20.0, 40.0);
    if day == 0 {
        for (number, name) in STORES.iter().enumerate() {
            open(story, number, name);
        }
    }
    measure(story, day);
    let listings = story.count(vehicles_per_day * LISTINGS_PER_VEHICLE).max(u32::from(day == 0));
    for number in 0..listings {
        story.jump(midnight);
        story.wait(0.0, 1_400.0);
        story.sleep();
        listing(story, day == 0 && number == 0);
    }
    story.jump(midnight);
}

fn open(story: &mut Story<'_>, number: usize, name: &str) {
    let (dealer, store) = (dealer(number), format!("str-{number}"));
    story.tell(DEALERS, "DealerStoreCreated", json!({"dealerId": dealer, "storeId": store, "storeName": name, "isActive": true, "configuration": {"language": "en"}, "createdAt": story.at()}));
    story.tell(
        DEALERS,
        "StoreThemeUpdated",
        json!({"dealerId": dealer, "storeId": store, "theme": {"color": "green"}}),
    );
    story.tell(DEALERS, "StoreCustomDomainSet", json!({"dealerId": dealer, "storeId": store, "customDomain": format!("{}.example", name.to_lowercase().replace(' ', "-"))}));
    story.tell(
        DEALERS,
        "DealerCommissionRateUpdated",
        json!({"dealerId": dealer, "commissionRate": COMMISSION, "updatedBy": "staff-04"}),
    );
}

fn dealer(number: usize) -> String {
    format!("dlr-{number}")
}

fn measure(story: &mut Story<'_>, day: u32) {
    let analytics = format!("dma-{day:05}");
    let listings = story.whole(180, 240);
    let price = story.whole(21_000, 25_000);
    story.tell(DEALERS, "MarketMetricsUpdated", json!({"analyticsId": analytics, "marketMetrics": {"listings": listings}, "totalListings": listings, "averagePrice": price, "totalSales": listings / 30, "totalRevenue": listings / 30 * price}));
    story.tell(DEALERS, "DealerMetricsUpdated", json!({"analyticsId": analytics, "dealerMetrics": {"active": STORES.len()}, "activeDealers": STORES.len(), "averageCommission": COMMISSION, "topPerformers": 3}));
}

/// A dealer's listing and who comes for it.
fn listing(story: &mut Story<'_>, everything: bool) {
    let dealer = dealer(story.whole(0, STORES.len() as i64 - 1).unsigned_abs() as usize);
    let (listing, vehicle) = (story.id("dls"), story.id("dvh"));
    let model = story.pick(&MODELS);
    let mut price = Story::round(model.price * story.between(0.3, 0.8), 10.0);
    let consigned = everything || story.chance(0.2);
    let kind = if consigned { "Consignment" } else { "Sale" };
    let worth = Story::round(price as f64 / story.between(0.86, 1.18), 10.0);
    story.tell(DEALERS, "VehicleValuationUpdated", json!({"vehicleId": vehicle, "valuationId": story.id("val"), "estimatedValue": price, "marketValue": worth, "tradeInValue": price * 8 / 10, "retailValue": price * 11 / 10, "source": "book", "valuationDate": story.at()}));
    story.tell(DEALERS, "VehicleListed", json!({"dealerId": dealer, "listingId": listing, "vehicleId": vehicle, "price": price, "description": format!("{} {}", model.make, model.model), "listingType": kind, "listedAt": story.at(), "isFeatured": story.chance(0.1)}));
    for order in 1..=story.whole(1, 6) {
        story.tell(DEALERS, "VehiclePhotoAdded", json!({"dealerId": dealer, "listingId": listing, "photoFileId": story.id("fil"), "displayOrder": order, "isPrimary": order == 1}));
    }
    if everything || story.chance(0.2) {
        story.tell(DEALERS, "VehicleUpdated", json!({"vehicleId": vehicle, "updatedVehicle": {"notes": "new tires"}}));
        story.tell(DEALERS, "VehicleListingUpdated", json!({"dealerId": dealer, "listingId": listing, "updatedListing": {"title": format!("{} {}", model.make, model.model)}}));
    }
    let deposit = consigned.then(|| story.id("dps"));
    if let Some(deposit) = &deposit {
        story.tell(
            DEALERS,
            "ConsignmentDocumentAdded",
            json!({"dealerId": dealer, "depositSaleId": deposit, "documentType": "title", "fileId": story.id("fil")}),
        );
        story.tell(DEALERS, "ReservePriceUpdated", json!({"dealerId": dealer, "depositSaleId": deposit, "oldPrice": price, "newPrice": price * 95 / 100, "reason": "owner agreed"}));
    }
    for inquiry in 0..story.whole(2, 6) {
        story.hours(2.0, 40.0);
        story.sleep();
        let viewer = story.id("usr");
        story.tell(DEALERS, "VehicleViewed", json!({"dealerId": dealer, "listingId": listing, "viewerId": viewer}));
        if inquiry == 0 && (everything || story.chance(0.3)) {
            let lower = price * 97 / 100;
            story.tell(DEALERS, "VehiclePriceUpdated", json!({"dealerId": dealer, "listingId": listing, "oldPrice": price, "newPrice": lower, "reason": "market"}));
            price = lower;
        }
        if !everything && !story.chance(0.6) {
            continue;
        }
        inquire(story, &viewer, &listing, everything);
        if (everything || story.chance(0.33))
            && lead(story, &dealer, &listing, &viewer, price, deposit.as_deref(), everything)
        {
            if everything || story.chance(0.5) {
                review(story, &viewer, &vehicle);
            }
            if story.chance(0.1) {
                // A dealer, maybe the same, takes it in and offers it again.
                let (dealer, listing) =
                    (self::dealer(story.whole(0, STORES.len() as i64 - 1).unsigned_abs() as usize), story.id("dls"));
                story.days(20.0, 60.0);
                story.tell(DEALERS, "VehicleListed", json!({"dealerId": dealer, "listingId": listing, "vehicleId": vehicle, "price": price, "listingType": "Sale", "listedAt": story.at()}));
            }
            return;
        }
    }
}

fn inquire(story: &mut Story<'_>, buyer: &str, listing: &str, everything: bool) {
    story.tell(DEALERS, "VehicleInquiryCreated", json!({"buyerId": buyer, "listingId": listing, "inquiryId": story.id("inq"), "message": "Is it still there?", "inquiryType": "availability", "contactMethod": "email"}));
    if everything || story.chance(0.2) {
        story.tell(
            DEALERS,
            "SearchSaved",
            json!({"buyerId": buyer, "searchId": story.id("sea"), "name": "Family car", "criteria": {"seats": 7}}),
        );
        story.tell(DEALERS, "BuyerCreditProfileUpdated", json!({"buyerId": buyer, "creditProfile": {"band": "B"}}));
    }
}

/// Somebody wants it; whether they buy it.
fn lead(
    story: &mut Story<'_>,
    dealer: &str,
    listing: &str,
    buyer: &str,
    price: i64,
    deposit: Option<&str>,
    everything: bool,
) -> bool {
    let lead = story.id("led");
    story.tell(DEALERS, "NewSalesLead", json!({"dealerId": dealer, "leadId": lead, "newLead": {"source": "inquiry"}, "buyerId": buyer, "listingId": listing}));
    story.tell(
        DEALERS,
        "LeadAssigned",
        json!({"dealerId": dealer, "leadId": lead, "salesPersonId": format!("sal-{}", story.whole(1, 30))}),
    );
    story.hours(1.0, 30.0);
    story.tell(
        DEALERS,
        "LeadStatusUpdated",
        json!({"dealerId": dealer, "leadId": lead, "oldStatus": "new", "newStatus": "contacted"}),
    );
    let offered = price * story.whole(88, 99) / 100;
    story.tell(DEALERS, "BuyerOfferMade", json!({"dealerId": dealer, "leadId": lead, "offeredPrice": offered}));
    if !everything && !story.chance(0.2) {
        story.tell(DEALERS, "LeadStatusUpdated", json!({"dealerId": dealer, "leadId": lead, "oldStatus": "contacted", "newStatus": "lost", "notes": "bought elsewhere"}));
        return false;
    }
    let contract = story.id("ctr");
    let commission = offered * 45 / 1_000;
    story.tell(DEALERS, "SalesContractCreated", json!({"dealerId": dealer, "contractId": contract, "listingId": listing, "leadId": lead, "buyerId": buyer, "salePrice": offered, "commissionAmount": commission, "dealerAmount": offered - commission, "createdAt": story.at()}));
    story.hours(1.0, 20.0);
    story.tell(DEALERS, "ContractSigned", json!({"dealerId": dealer, "contractId": contract, "contractDocumentId": story.id("doc"), "signedAt": story.at()}));
    story.tell(DEALERS, "PaymentReceived", json!({"dealerId": dealer, "contractId": contract, "paymentId": story.id("pay"), "amount": offered, "paymentMethod": "transfer"}));
    story.tell(
        DEALERS,
        "SalesContractCompleted",
        json!({"dealerId": dealer, "contractId": contract, "completedAt": story.at()}),
    );
    story.tell(
        DEALERS,
        "VehicleSold",
        json!({"dealerId": dealer, "listingId": listing, "contractId": contract, "soldAt": story.at()}),
    );
    if let Some(deposit) = deposit {
        story.tell(DEALERS, "DepositSaleSold", json!({"dealerId": dealer, "depositSaleId": deposit, "contractId": contract, "salePrice": offered, "soldAt": story.at()}));
    }
    true
}

/// What the buyer says of it, a while later.
fn review(story: &mut Story<'_>, buyer: &str, vehicle: &str) {
    story.days(3.0, 14.0);
    let stars = story.whole(2, 5);
    story.tell("support", "ReviewSubmitted", json!({"reviewId": story.id("rev"), "rating": stars, "comments": "Drives as described.", "submittedAt": story.at(), "customerId": buyer, "vehicleId": vehicle}));
    story.fact(Fact::Reviewed { stars });
}
