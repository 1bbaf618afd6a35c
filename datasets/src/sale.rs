//! A customer buys the vehicle.

use serde_json::json;

use crate::{
    car::Car,
    cars::{FIRST_NAMES, LAST_NAMES},
    story::Story,
    truth::Fact,
};

/// The refundable deposit, in CAD.
const DEPOSIT: i64 = 100;
/// How long a deposit holds a vehicle.
const HELD_HOURS: f64 = 72.0;

/// Share of listings that no customer buys.
const UNSOLD: f64 = 0.15;

/// A finished sale.
pub(crate) struct Sale {
    pub(crate) transaction_id: String,
    pub(crate) price: f64,
}

/// Sell the listed vehicle, unless nobody comes.
pub(crate) fn sell(story: &mut Story<'_>, car: &Car, price: f64) -> Option<Sale> {
    if car.number >= crate::car::KINDS && story.chance(UNSOLD) {
        give_up(story, car);
        return None;
    }
    account(story, car);
    if car.is_kind(5) || story.chance(0.1) {
        let lapsed = reserve(story, car, false);
        story.hours(HELD_HOURS, HELD_HOURS + 0.1);
        story.tell("inventory", "ReservationExpired", json!({"reservationId": lapsed, "expiredAt": story.at(), "vehicleId": car.vehicle_id, "listingId": car.listing_id}));
        story.tell(
            "inventory",
            "VehicleAvailable",
            json!({"vehicleId": car.vehicle_id, "availableAt": story.at(), "listingId": car.listing_id}),
        );
        story.hours(2.0, 48.0);
    }
    reserve(story, car, true);
    advise(story, car);
    if car.is_kind(6) || story.chance(0.25) {
        trade_in(story, car);
    }
    let financed = car.number.is_multiple_of(2) || car.is_kind(7) || story.chance(0.3);
    if financed {
        finance(story, car, price);
    }
    Some(close(story, car, price, financed))
}

/// Nobody bought it: after weeks it goes to the trade.
fn give_up(story: &mut Story<'_>, car: &Car) {
    story.days(30.0, 90.0);
    story.sleep();
    story.tell(
        "inventory",
        "ListingDeactivated",
        json!({"listingId": car.listing_id, "deactivatedAt": story.at(), "reason": "sent to wholesale", "vehicleId": car.vehicle_id}),
    );
    story.fact(Fact::Withdrawn { listing: car.listing_id.clone() });
    story.tell(
        "production",
        "VehicleSentToWholesale",
        json!({"vehicleId": car.vehicle_id, "wholesaleChannel": "auction", "sentAt": story.at()}),
    );
}

fn account(story: &mut Story<'_>, car: &Car) {
    let user = &car.buyer;
    let (first, last) = (*story.pick(&FIRST_NAMES), *story.pick(&LAST_NAMES));
    let email = format!("{}.{}.{}@mail.example", first.to_lowercase(), last.to_lowercase(), car.number);
    let phone = format!("+1-555-{:03}-{:04}", story.whole(200, 999), story.whole(0, 9_999));
    story.tell("accounts", "AccountCreated", json!({"userId": user, "email": email, "createdAt": story.at()}));
    story.tell("accounts", "EmailVerified", json!({"userId": user, "email": email, "verifiedAt": story.at()}));
    story.tell("accounts", "PhoneVerified", json!({"userId": user, "phone": phone, "verifiedAt": story.at()}));
    story.tell(
        "accounts",
        "LoginAttempted",
        json!({"userId": user, "attemptedAt": story.at(), "ipAddress": "203.0.113.7"}),
    );
    story.tell(
        "accounts",
        "LoginSuccessful",
        json!({"userId": user, "loggedInAt": story.at(), "sessionId": story.id("ses")}),
    );
    if car.is_kind(8) || story.chance(0.3) {
        story.tell(
            "accounts",
            "ProfileUpdated",
            json!({"userId": user, "updatedFields": ["address"], "updatedAt": story.at()}),
        );
        story.tell("accounts", "PasswordReset", json!({"userId": user, "resetAt": story.at()}));
        story.tell(
            "accounts",
            "SearchPreferencesSaved",
            json!({"userId": user, "preferences": {"make": car.model.make}, "savedAt": story.at()}),
        );
        story.tell("accounts", "NotificationPreferencesUpdated", json!({"userId": user, "emailEnabled": true, "smsEnabled": story.chance(0.5), "pushEnabled": story.chance(0.5)}));
        story.tell(
            "accounts",
            "CommunicationPreferencesSet",
            json!({"userId": user, "marketingOptIn": story.chance(0.6), "updatedAt": story.at()}),
        );
    }
    let address = json!({"street": format!("{} Maple St", story.whole(1, 900)), "city": car.city.name, "province": car.city.province});
    story.wait(1.0, 20.0);
    story.tell(
        "purchase",
        "GetStartedClicked",
        json!({"vehicleId": car.vehicle_id, "userId": user, "timestamp": story.at()}),
    );
    let contact =
        json!({"userId": user, "name": format!("{first} {last}"), "email": email, "phone": phone, "address": address});
    story.tell("purchase", "ContactInformationSubmitted", contact);
}

/// Hold the vehicle; the reservation's id.
fn reserve(story: &mut Story<'_>, car: &Car, buys: bool) -> String {
    let customer = if buys { car.buyer.clone() } else { story.id("usr") };
    let reservation = story.id("res");
    let vehicle = &car.vehicle_id;
    story.tell(
        "purchase",
        "VehicleReservationInitiated",
        json!({"reservationId": reservation, "vehicleId": vehicle, "userId": customer, "initiatedAt": story.at()}),
    );
    story.wait(2.0, 10.0);
    story.tell("purchase", "DepositPaid", json!({"depositId": story.id("dep"), "amount": DEPOSIT, "paymentMethod": "card", "paidAt": story.at(), "reservationId": reservation, "customerId": customer}));
    let until = story.later(HELD_HOURS);
    story.tell("purchase", "ReservationConfirmed", json!({"reservationId": reservation, "vehicleId": vehicle, "confirmedAt": story.at(), "expiresAt": until, "customerId": customer, "listingId": car.listing_id}));
    story.tell("inventory", "VehicleReserved", json!({"reservationId": reservation, "vehicleId": vehicle, "customerId": customer, "reservedUntil": until, "listingId": car.listing_id}));
    story.tell("inventory", "VehicleUnavailable", json!({"vehicleId": vehicle, "unavailableReason": "reserved", "unavailableAt": story.at(), "listingId": car.listing_id}));
    reservation
}

fn advise(story: &mut Story<'_>, car: &Car) {
    let advisor = format!("adv-{:02}", story.whole(1, 15));
    let customer = &car.buyer;
    story.wait(1.0, 20.0);
    story.tell(
        "purchase",
        "AdvisorAssigned",
        json!({"advisorId": advisor, "customerId": customer, "assignedAt": story.at()}),
    );
    story.wait(5.0, 180.0);
    story.tell("purchase", "CustomerContacted", json!({"contactId": story.id("con"), "advisorId": advisor, "customerId": customer, "contactMethod": "phone", "contactedAt": story.at()}));
    story.tell("purchase", "PurchaseDiscussionStarted", json!({"discussionId": story.id("dis"), "advisorId": advisor, "customerId": customer, "startedAt": story.at(), "vehicleId": car.vehicle_id}));
}

fn trade_in(story: &mut Story<'_>, car: &Car) {
    let trade = story.id("tin");
    let appraisal = story.id("app");
    let value = story.between(2_500.0, 14_000.0);
    story.tell(
        "trade_in",
        "TradeInRequested",
        json!({"tradeInId": trade, "customerId": car.buyer, "requestedAt": story.at()}),
    );
    let details =
        json!({"make": "Honda", "model": "Fit", "year": car.year - 6, "mileage": story.whole(90_000, 220_000)});
    story.tell(
        "trade_in",
        "TradeInDetailsSubmitted",
        json!({"tradeInId": trade, "vehicleDetails": details, "submittedAt": story.at()}),
    );
    story.tell(
        "trade_in",
        "TradeInOfferGenerated",
        json!({"tradeInId": trade, "offerAmount": Story::round(value, 50.0), "generatedAt": story.at()}),
    );
    story.hours(0.5, 12.0);
    if !car.is_kind(6) && story.chance(0.4) || car.number == 16 {
        story.tell("trade_in", "TradeInOfferDeclined", json!({"tradeInId": trade, "declinedAt": story.at()}));
        return;
    }
    if car.number == 6 {
        // A first, lower offer that is turned down before the one that is taken.
        let refused = story.id("tin");
        story.tell(
            "trade_in",
            "TradeInRequested",
            json!({"tradeInId": refused, "customerId": car.buyer, "requestedAt": story.at()}),
        );
        story.tell(
            "trade_in",
            "TradeInOfferGenerated",
            json!({"tradeInId": refused, "offerAmount": Story::round(value * 0.8, 50.0), "generatedAt": story.at()}),
        );
        story.tell("trade_in", "TradeInOfferDeclined", json!({"tradeInId": refused, "declinedAt": story.at()}));
    }
    story.tell("trade_in", "TradeInOfferAccepted", json!({"tradeInId": trade, "acceptedAt": story.at()}));
    let when = story.later(24.0);
    story.tell(
        "trade_in",
        "TradeInAppraisalScheduled",
        json!({"appraisalId": appraisal, "scheduledDate": when, "location": car.city.name, "tradeInId": trade}),
    );
    story.hours(18.0, 30.0);
    story.tell(
        "trade_in",
        "TradeInInspected",
        json!({"appraisalId": appraisal, "inspectedAt": story.at(), "condition": "fair", "tradeInId": trade}),
    );
    let agreed = Story::round(value * story.between(0.92, 1.0), 50.0);
    story.tell(
        "trade_in",
        "TradeInValueAdjusted",
        json!({"tradeInId": trade, "adjustedValue": agreed, "adjustmentReason": "condition"}),
    );
    story.tell(
        "trade_in",
        "TradeInCompleted",
        json!({"tradeInId": trade, "finalValue": agreed, "completedAt": story.at(), "customerId": car.buyer}),
    );
    story.tell(
        "trade_in",
        "TradeInCreditApplied",
        json!({"purchaseId": story.id("pur"), "tradeInCredit": agreed, "appliedAt": story.at(), "tradeInId": trade}),
    );
}

fn finance(story: &mut Story<'_>, car: &Car, price: f64) {
    let application = story.id("fin");
    let customer = &car.buyer;
    let rate = (story.between(4.5, 10.5) * 100.0).round() / 100.0;
    let term = *story.pick(&[36, 48, 60, 72, 84]);
    let option = json!({"rate": rate, "termMonths": term});
    story.tell("financing", "FinancingApplicationStarted", json!({"applicationId": application, "customerId": customer, "startedAt": story.at(), "vehicleId": car.vehicle_id}));
    story.tell(
        "financing",
        "CreditCheckAuthorized",
        json!({"applicationId": application, "authorizedAt": story.at(), "customerId": customer}),
    );
    story.tell("financing", "CreditScoreRetrieved", json!({"applicationId": application, "creditScore": story.whole(560, 830), "retrievedAt": story.at(), "customerId": customer}));
    story.tell(
        "financing",
        "FinancingOptionsCalculated",
        json!({"applicationId": application, "options": [option], "calculatedAt": story.at()}),
    );
    story.tell(
        "purchase",
        "FinancingOptionsPresented",
        json!({"customerId": customer, "financingOptions": [option], "presentedAt": story.at()}),
    );
    story.tell(
        "financing",
        "FinancingTermsPresented",
        json!({"applicationId": application, "terms": [option], "presentedAt": story.at()}),
    );
    story.tell("purchase", "FinancingSelected", json!({"financingApplicationId": application, "selectedOption": option, "selectedAt": story.at(), "customerId": customer}));
    let lender = format!("len-{}", story.whole(1, 4));
    story.tell(
        "financing",
        "FinancingApplicationSubmitted",
        json!({"applicationId": application, "lenderId": lender, "submittedAt": story.at(), "customerId": customer}),
    );
    story.tell(
        "financing",
        "FinancingUnderReview",
        json!({"applicationId": application, "reviewStartedAt": story.at()}),
    );
    story.hours(0.5, 20.0);
    if car.is_kind(7) || story.chance(0.12) {
        story.tell("financing", "FinancingDenied", json!({"applicationId": application, "deniedAt": story.at(), "denialReason": "income", "lenderId": lender, "customerId": customer}));
        story.tell("purchase", "FinancingDeclined", json!({"financingApplicationId": application, "declinedAt": story.at(), "reason": "income", "customerId": customer}));
        return;
    }
    let amount = Story::round(price * 0.8, 10.0);
    story.tell("financing", "FinancingApproved", json!({"applicationId": application, "approvedAmount": amount, "interestRate": rate, "term": term, "approvedAt": story.at(), "lenderId": lender, "customerId": customer}));
    story.tell("purchase", "FinancingApproved", json!({"financingApplicationId": application, "approvedAmount": amount, "terms": option, "approvedAt": story.at(), "customerId": customer}));
    story.wait(5.0, 60.0);
    story.tell(
        "financing",
        "FinancingTermsAccepted",
        json!({"applicationId": application, "acceptedAt": story.at(), "customerId": customer}),
    );
    story.tell("financing", "LoanAgreementSigned", json!({"loanId": story.id("loan"), "signedAt": story.at(), "agreementHash": story.id("sha"), "applicationId": application, "customerId": customer}));
}

fn close(story: &mut Story<'_>, car: &Car, price: f64, financed: bool) -> Sale {
    let (customer, vehicle) = (&car.buyer, &car.vehicle_id);
    let transaction = story.id("txn");
    let agreement = story.id("agr");
    let total = Story::round(price, 10.0);
    story.hours(1.0, 20.0);
    story.tell("purchase", "PaperworkInitiated", json!({"transactionId": transaction, "vehicleId": vehicle, "customerId": customer, "initiatedAt": story.at(), "listingId": car.listing_id}));
    story.tell("purchase", "PurchaseAgreementGenerated", json!({"agreementId": agreement, "terms": {"price": total}, "generatedAt": story.at(), "transactionId": transaction, "vehicleId": vehicle, "customerId": customer}));
    story.tell("purchase", "DocumentsSigned", json!({"agreementId": agreement, "signedAt": story.at(), "signatureHash": story.id("sha"), "transactionId": transaction, "vehicleId": vehicle, "customerId": customer}));
    story.tell("purchase", "InsuranceUploaded", json!({"customerId": customer, "vehicleId": vehicle, "policyNumber": story.id("pol"), "insuranceProvider": "Maple Mutual", "uploadedAt": story.at()}));
    story.hours(0.5, 6.0);
    story.tell(
        "purchase",
        "InsuranceVerified",
        json!({"customerId": customer, "vehicleId": vehicle, "verifiedAt": story.at(), "verifierId": "ver-01"}),
    );
    story.tell("purchase", "RegistrationProcessed", json!({"vehicleId": vehicle, "customerId": customer, "registrationNumber": story.id("reg"), "processedAt": story.at()}));
    let kind = if financed { "loan" } else { "cash" };
    story.tell(
        "purchase",
        "PaymentMethodSelected",
        json!({"customerId": customer, "paymentType": kind, "selectedAt": story.at(), "transactionId": transaction}),
    );
    story.tell("purchase", "DownPaymentReceived", json!({"paymentId": story.id("pay"), "amount": Story::round(price * 0.2, 10.0), "receivedAt": story.at(), "transactionId": transaction, "customerId": customer}));
    if financed {
        story.tell("purchase", "FinancingCompleted", json!({"financingId": story.id("fnc"), "disbursedAmount": Story::round(price * 0.8, 10.0), "completedAt": story.at(), "transactionId": transaction}));
    }
    story.tell("purchase", "FullPaymentReceived", json!({"transactionId": transaction, "totalAmount": total, "receivedAt": story.at(), "customerId": customer, "vehicleId": vehicle}));
    story.tell("inventory", "VehicleSold", json!({"listingId": car.listing_id, "soldAt": story.at(), "finalPrice": total, "buyerId": customer, "vehicleId": vehicle}));
    story.fact(Fact::Sold { listing: car.listing_id.clone(), price: total });
    story.tell(
        "inventory",
        "ListingDeactivated",
        json!({"listingId": car.listing_id, "deactivatedAt": story.at(), "reason": "sold", "vehicleId": vehicle}),
    );
    Sale { transaction_id: transaction, price }
}
