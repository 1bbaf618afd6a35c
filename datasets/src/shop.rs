//! The shop for parts and accessories, a system of its own.
//!
//! About as many orders a day as the marketplace buys vehicles. Assumed, after what shops publish: seven carts of ten are
//! left, three orders of a hundred are cancelled, and two payments of a hundred refunded.

use serde_json::{Value, json};

use crate::{
    cars::{FIRST_NAMES, LAST_NAMES},
    story::Story,
};

const SHOP: &str = "shop";
const CARTS_PER_VEHICLE: f64 = 3.0;
const LEFT: f64 = 0.7;
const CANCELLED: f64 = 0.03;
const REFUNDED: f64 = 0.02;
const PAYMENT_FAILED: f64 = 0.02;
const LOW_STOCK: i64 = 5;

/// Name, category, price in CAD.
const PRODUCTS: [(&str, &str, f64); 12] = [
    ("All-weather mats", "interior", 149.0),
    ("Cargo liner", "interior", 119.0),
    ("Seat covers", "interior", 189.0),
    ("Dash camera", "electronics", 229.0),
    ("Phone holder", "electronics", 39.0),
    ("Battery booster", "electronics", 129.0),
    ("Winter wipers", "exterior", 49.0),
    ("Roof bars", "exterior", 259.0),
    ("Bicycle carrier", "exterior", 349.0),
    ("Wheel locks", "exterior", 79.0),
    ("Touch-up paint", "care", 29.0),
    ("Detailing kit", "care", 89.0),
];
const CATEGORIES: [&str; 4] = ["interior", "electronics", "exterior", "care"];

/// A day of the shop.
pub(crate) fn day(story: &mut Story<'_>, day: u32, vehicles_per_day: f64) {
    let midnight = story.now();
    story.wait(10.0, 30.0);
    if day == 0 {
        open(story);
    }
    stock(story, day);
    let carts = story.count(vehicles_per_day * CARTS_PER_VEHICLE).max(u32::from(day == 0) * 4);
    for number in 0..carts {
        story.jump(midnight);
        story.wait(0.0, 1_400.0);
        story.sleep();
        cart(story, (day == 0).then_some(number));
    }
    story.jump(midnight);
}

fn product(number: usize) -> String {
    format!("prd-{number:02}")
}

fn inventory(number: usize) -> String {
    format!("stk-{number:02}")
}

fn open(story: &mut Story<'_>) {
    for category in CATEGORIES {
        story.tell(
            SHOP,
            "CategoryCreated",
            json!({"categoryId": format!("cat-{category}"), "name": category, "depth": 0, "createdAt": story.at()}),
        );
    }
    for (number, (name, category, price)) in PRODUCTS.iter().enumerate() {
        story.tell(SHOP, "ProductCreated", json!({"productId": product(number), "name": name, "price": price, "categoryId": format!("cat-{category}"), "status": "draft", "createdBy": "staff-01", "createdAt": story.at()}));
        story.tell(SHOP, "ProductActivated", json!({"productId": product(number), "activatedAt": story.at()}));
        story.tell(SHOP, "InventoryQuantitySet", json!({"inventoryId": inventory(number), "productId": product(number), "previousValue": 0, "newValue": 200, "reason": "first stock", "userId": "staff-01", "timestamp": story.at()}));
    }
    // One that did not last.
    let gone = "prd-99";
    story.tell(SHOP, "ProductCreated", json!({"productId": gone, "name": "Fluffy dice", "price": 9.5, "categoryId": "cat-interior", "createdAt": story.at()}));
    story.tell(SHOP, "ProductDeactivated", json!({"productId": gone, "deactivatedAt": story.at()}));
    story.tell(SHOP, "ProductDeleted", json!({"productId": gone, "deletedBy": "staff-01", "deletedAt": story.at()}));
}

/// Deliveries, and shelves that run empty.
fn stock(story: &mut Story<'_>, day: u32) {
    let number = day as usize % PRODUCTS.len();
    let (name, _, price) = PRODUCTS[number];
    let (inventory, product) = (inventory(number), product(number));
    if day == 0 || story.chance(0.2) {
        let left = story.whole(0, LOW_STOCK);
        let left = if day == 0 { 0 } else { left };
        story.tell(SHOP, "LowStockAlert", json!({"inventoryId": inventory, "productId": product, "currentStock": left, "threshold": LOW_STOCK, "triggeredAt": story.at()}));
        story.tell(
            SHOP,
            "LowStockNotification",
            json!({"productId": product, "productName": name, "currentStock": left, "threshold": LOW_STOCK}),
        );
        if left == 0 {
            story.tell(
                SHOP,
                "OutOfStock",
                json!({"inventoryId": inventory, "productId": product, "triggeredAt": story.at()}),
            );
            story.tell(SHOP, "OutOfStockNotification", json!({"productId": product, "productName": name}));
        }
    }
    story.hours(1.0, 4.0);
    let came = story.whole(20, 120);
    story.tell(SHOP, "InventoryAdjusted", json!({"inventoryId": inventory, "productId": product, "adjustment": came, "newValue": 80 + came, "reason": "delivery", "userId": "staff-02", "timestamp": story.at()}));
    if day == 0 || story.chance(0.1) {
        story.tell(SHOP, "ProductUpdated", json!({"productId": product, "changedFields": {"price": price}, "updatedBy": "staff-02", "updatedAt": story.at()}));
    }
}

/// Somebody fills a cart. The first of the first day go through everything that can happen.
fn cart(story: &mut Story<'_>, first: Option<u32>) {
    let is = |number: u32| first == Some(number);
    let (customer, cart) = (story.id("cus"), story.id("crt"));
    let (first_name, last_name) = (*story.pick(&FIRST_NAMES), *story.pick(&LAST_NAMES));
    let email =
        format!("{}.{}.{}@shop.example", first_name.to_lowercase(), last_name.to_lowercase(), story.whole(1, 99_999));
    if is(0) || story.chance(0.5) {
        register(story, &customer, first_name, last_name, &email);
        if is(0) || story.chance(0.1) {
            story.tell(SHOP, "CartMerged", json!({"cartId": cart, "guestCartId": story.id("crt"), "customerId": customer, "mergedItems": [{"productId": product(3), "quantity": 1}], "mergedAt": story.at()}));
        }
    }
    let mut items: Vec<(usize, i64)> = Vec::new();
    for _ in 0..story.whole(1, 3) {
        let number = story.whole(0, PRODUCTS.len() as i64 - 1).unsigned_abs() as usize;
        let quantity = story.whole(1, 2);
        story.wait(0.5, 6.0);
        story.tell(SHOP, "ItemAddedToCart", json!({"cartId": cart, "productId": product(number), "quantity": quantity, "unitPrice": PRODUCTS[number].2, "customerId": customer, "addedAt": story.at()}));
        items.push((number, quantity));
    }
    if is(0) || story.chance(0.15) {
        let (number, quantity) = items[0];
        story.tell(SHOP, "CartItemQuantityUpdated", json!({"cartId": cart, "cartItemId": story.id("itm"), "productId": product(number), "oldQuantity": quantity, "newQuantity": quantity + 1, "updatedAt": story.at()}));
        items[0].1 += 1;
    }
    if is(0) || items.len() > 1 && story.chance(0.15) {
        let taken = story.whole(0, PRODUCTS.len() as i64 - 1).unsigned_abs() as usize;
        story.tell(SHOP, "ItemAddedToCart", json!({"cartId": cart, "productId": product(taken), "quantity": 1, "unitPrice": PRODUCTS[taken].2, "customerId": customer, "addedAt": story.at()}));
        story.tell(
            SHOP,
            "ItemRemovedFromCart",
            json!({"cartId": cart, "productId": product(taken), "removedAt": story.at()}),
        );
    }
    if is(1) || first.is_none() && story.chance(LEFT) {
        let seen = story.at();
        if is(1) || story.chance(0.3) {
            story.tell(
                SHOP,
                "CartCleared",
                json!({"cartId": cart, "reason": "customer", "customerId": customer, "clearedAt": story.at()}),
            );
        }
        story.days(1.0, 1.1);
        story.tell(
            SHOP,
            "CartExpired",
            json!({"cartId": cart, "customerId": customer, "lastActivityDate": seen, "expiredAt": story.at()}),
        );
        return;
    }
    order(story, &customer, &items, first);
}

fn register(story: &mut Story<'_>, customer: &str, first_name: &str, last_name: &str, email: &str) {
    story.tell(SHOP, "CustomerRegistered", json!({"customerId": customer, "email": email, "firstName": first_name, "lastName": last_name, "createdAt": story.at()}));
    story.tell(
        SHOP,
        "CustomerRegisteredNotification",
        json!({"customerId": customer, "email": email, "firstName": first_name}),
    );
    story.wait(1.0, 30.0);
    story.tell(
        SHOP,
        "CustomerEmailVerified",
        json!({"customerId": customer, "email": email, "verifiedAt": story.at()}),
    );
    let city = story.city();
    story.tell(SHOP, "ShippingAddressAdded", json!({"customerId": customer, "addressId": story.id("adr"), "street": format!("{} Birch Ave", story.whole(1, 900)), "city": city.name, "state": city.province, "postalCode": "A1A 1A1", "country": city.country}));
}

fn order(story: &mut Story<'_>, customer: &str, items: &[(usize, i64)], first: Option<u32>) {
    let is = |number: u32| first == Some(number);
    let (order, payment) = (story.id("ord"), story.id("pay"));
    let number = format!("S-{}", &order[4..10].to_uppercase());
    let subtotal: f64 = items.iter().map(|(product, quantity)| PRODUCTS[*product].2 * *quantity as f64).sum();
    let tax = (subtotal * 13.0).round() / 100.0;
    let shipping = if subtotal >= 100.0 { 0.0 } else { 12.5 };
    let total = cents(subtotal + tax + shipping);
    let lines: Vec<Value> = items.iter().map(|(item, quantity)| json!({"productId": product(*item), "quantity": quantity, "unitPrice": PRODUCTS[*item].2})).collect();
    story.wait(1.0, 8.0);
    story.tell(SHOP, "OrderPlaced", json!({"orderId": order, "orderNumber": number, "customerId": customer, "lineItems": lines, "totalAmount": total, "subtotal": subtotal, "shippingCost": shipping, "tax": tax, "createdAt": story.at()}));
    story.tell(SHOP, "OrderPlacedNotification", json!({"orderId": order, "orderNumber": number, "customerId": customer, "totalAmount": total, "itemCount": items.len()}));
    for (item, quantity) in items {
        story.tell(SHOP, "InventoryReserved", json!({"inventoryId": inventory(*item), "productId": product(*item), "quantity": quantity, "orderId": order, "reservedAt": story.at()}));
    }
    if is(2) || story.chance(PAYMENT_FAILED) {
        story.tell(
            SHOP,
            "PaymentFailedNotification",
            json!({"orderId": order, "customerId": customer, "amount": total, "failureReason": "card declined"}),
        );
        cancel(story, (&order, &number), customer, items, "payment failed", 0.0);
        return;
    }
    story.tell(SHOP, "PaymentAuthorized", json!({"paymentId": payment, "orderId": order, "amount": total, "authorizationId": story.id("aut"), "paymentMethod": "card", "authorizedAt": story.at()}));
    story.wait(2.0, 60.0);
    story.tell(
        SHOP,
        "OrderConfirmed",
        json!({"orderId": order, "orderNumber": number, "confirmedAt": story.at(), "confirmedBy": "system"}),
    );
    if is(3) || story.chance(CANCELLED) {
        story.hours(0.2, 4.0);
        cancel(story, (&order, &number), customer, items, "customer", total);
        refund(story, &payment, &order, customer, total);
        return;
    }
    for (item, quantity) in items {
        story.tell(SHOP, "InventoryDeducted", json!({"inventoryId": inventory(*item), "productId": product(*item), "quantity": quantity, "orderId": order, "deductedAt": story.at()}));
    }
    story.hours(3.0, 30.0);
    let (tracking, carrier) = (story.id("trk"), *story.pick(&["Canada Post", "Purolator", "UPS"]));
    story.tell(SHOP, "OrderShipped", json!({"orderId": order, "orderNumber": number, "trackingNumber": tracking, "carrier": carrier, "shippedAt": story.at()}));
    story.tell(SHOP, "OrderShippedNotification", json!({"orderId": order, "orderNumber": number, "customerId": customer, "trackingNumber": tracking, "carrier": carrier}));
    story.days(1.0, 5.0);
    story.tell(SHOP, "OrderDelivered", json!({"orderId": order, "orderNumber": number, "deliveredAt": story.at()}));
    if is(0) || story.chance(REFUNDED) {
        story.days(0.5, 6.0);
        refund(story, &payment, &order, customer, total);
    }
    if is(0) || story.chance(0.002) {
        story.days(1.0, 3.0);
        story.tell(SHOP, "CustomerDataErased", json!({"anonymizedId": story.id("anon"), "erasedAt": story.at()}));
    }
}

fn cancel(
    story: &mut Story<'_>,
    (order, number): (&str, &str),
    customer: &str,
    items: &[(usize, i64)],
    reason: &str,
    refunded: f64,
) {
    story.tell(SHOP, "OrderCancelled", json!({"orderId": order, "orderNumber": number, "customerId": customer, "reason": reason, "cancelledAt": story.at()}));
    story.tell(SHOP, "OrderCancelledNotification", json!({"orderId": order, "orderNumber": number, "customerId": customer, "reason": reason, "refundAmount": refunded}));
    for (item, quantity) in items {
        story.tell(SHOP, "InventoryReleased", json!({"inventoryId": inventory(*item), "productId": product(*item), "quantity": quantity, "reason": "order cancelled", "releasedAt": story.at()}));
    }
}

fn refund(story: &mut Story<'_>, payment: &str, order: &str, customer: &str, amount: f64) {
    let refund = story.id("rfd");
    story.tell(SHOP, "PaymentRefunded", json!({"paymentId": payment, "orderId": order, "refundAmount": amount, "refundId": refund, "refundedAt": story.at()}));
    story.tell(
        SHOP,
        "RefundProcessedNotification",
        json!({"orderId": order, "customerId": customer, "refundAmount": amount, "refundId": refund}),
    );
}

fn cents(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}
