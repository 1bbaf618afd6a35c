//! What the answers must be, counted naively over the same lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

/// A public listing, as a plain fold over a history in order of time gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Car {
    pub make: String,
    pub body: String,
    pub price: f64,
    pub latitude: f64,
    pub longitude: f64,
}

fn events(history: &str) -> impl Iterator<Item = Value> + '_ {
    history.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Listings that are public at the end of a simulated history.
pub(crate) fn public_listings(history: &str) -> BTreeMap<String, Car> {
    let mut cars: HashMap<String, Car> = HashMap::new();
    let mut public = BTreeSet::new();
    for event in events(history) {
        let data = &event["data"];
        let listing = data["listingId"].as_str().unwrap_or_default().to_owned();
        match event["eventType"].as_str().unwrap() {
            "VehicleListingCreated" => {
                let car = Car {
                    make: text(&data["make"]),
                    body: text(&data["bodyType"]),
                    price: 0.0,
                    latitude: data["latitude"].as_f64().unwrap(),
                    longitude: data["longitude"].as_f64().unwrap(),
                };
                cars.insert(listing, car);
            }
            "PriceSet" => cars.get_mut(&listing).unwrap().price = data["price"].as_f64().unwrap(),
            "ListingPublished" => drop(public.insert(listing)),
            "VehicleSold" | "ListingDeactivated" => drop(public.remove(&listing)),
            _ => {}
        }
    }
    public.into_iter().map(|id| (id.clone(), cars[&id].clone())).collect()
}

pub(crate) fn counts_by_type(history: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events(history) {
        // Contexts share names; where they do, the type says which.
        let name = text(&event["eventType"]);
        let bare = name.rsplit('.').next().unwrap();
        *counts.entry(bare.to_owned()).or_default() += 1;
    }
    counts
}

/// `YYYY-MM-DD` of a UTC time as the simulator writes it.
fn day(value: &Value) -> String {
    text(value)[..10].to_owned()
}

type Days = BTreeMap<String, BTreeMap<&'static str, Value>>;

fn number(value: f64) -> Value {
    json!(value)
}

/// The four KPIs by UTC day.
pub(crate) fn kpis(history: &str) -> BTreeMap<&'static str, Days> {
    BTreeMap::from([
        ("sales_volume", sales(history)),
        ("offer_volume", offers(history)),
        ("production_rate", production(history)),
        ("customer_satisfaction", satisfaction(history)),
    ])
}

fn sales(history: &str) -> Days {
    let mut sold: BTreeMap<String, (BTreeSet<String>, f64)> = BTreeMap::new();
    let mut returned: BTreeMap<String, u64> = BTreeMap::new();
    for event in events(history) {
        let data = &event["data"];
        match event["eventType"].as_str().unwrap() {
            "VehicleSold" => {
                let (listings, revenue) = sold.entry(day(&data["soldAt"])).or_default();
                listings.insert(text(&data["listingId"]));
                *revenue += data["finalPrice"].as_f64().unwrap();
            }
            "VehicleReturned" => *returned.entry(day(&data["returnedAt"])).or_default() += 1,
            _ => {}
        }
    }
    let days: BTreeSet<String> = sold.keys().chain(returned.keys()).cloned().collect();
    let row = |day: &String| {
        let (units, revenue) = sold.get(day).map_or((0, 0.0), |(listings, revenue)| (listings.len() as i64, *revenue));
        let back = returned.get(day).copied().unwrap_or_default() as i64;
        BTreeMap::from([
            ("units_sold", json!(units)),
            ("revenue", number(revenue)),
            ("average_price", if units > 0 { number(revenue / units as f64) } else { Value::Null }),
            ("units_returned", json!(back)),
            ("net_units", json!(units - back)),
        ])
    };
    days.into_iter().map(|day| (day.clone(), row(&day))).collect()
}

fn offers(history: &str) -> Days {
    #[derive(Default)]
    struct Bucket {
        generated: BTreeSet<String>,
        amounts: Vec<f64>,
        answers: BTreeMap<&'static str, i64>,
    }
    let mut buckets: BTreeMap<String, Bucket> = BTreeMap::new();
    for event in events(history) {
        let data = &event["data"];
        let (time, answer) = match event["eventType"].as_str().unwrap() {
            "AIOfferGenerated" => {
                let bucket = buckets.entry(day(&event["timestamp"])).or_default();
                bucket.generated.insert(text(&data["offerId"]));
                bucket.amounts.push(data["offerAmount"].as_f64().unwrap());
                continue;
            }
            "OfferAccepted" => ("acceptedAt", "offers_accepted"),
            "OfferRejected" => ("rejectedAt", "offers_rejected"),
            "OfferExpired" => ("expiredAt", "offers_expired"),
            _ => continue,
        };
        *buckets.entry(day(&data[time])).or_default().answers.entry(answer).or_default() += 1;
    }
    let row = |bucket: Bucket| {
        let generated = bucket.generated.len() as f64;
        let answer = |name| bucket.answers.get(name).copied().unwrap_or_default();
        let none = bucket.generated.is_empty();
        let mean = bucket.amounts.iter().sum::<f64>() / generated;
        BTreeMap::from([
            ("offers_generated", json!(bucket.generated.len())),
            ("offers_accepted", json!(answer("offers_accepted"))),
            ("offers_rejected", json!(answer("offers_rejected"))),
            ("offers_expired", json!(answer("offers_expired"))),
            ("acceptance_rate", if none { Value::Null } else { number(answer("offers_accepted") as f64 / generated) }),
            ("average_offer", if none { Value::Null } else { number(mean) }),
        ])
    };
    buckets.into_iter().map(|(day, bucket)| (day, row(bucket))).collect()
}

/// Hours since some midnight long ago, of a UTC time as the simulator writes it.
fn hours(value: &Value) -> f64 {
    schemas::field_type::parse_timestamp(value.as_str().unwrap()).unwrap() as f64 / 3.6e9
}

fn production(history: &str) -> Days {
    let mut started: HashMap<String, f64> = HashMap::new();
    let mut buckets: BTreeMap<String, (BTreeSet<String>, Vec<f64>)> = BTreeMap::new();
    for event in events(history) {
        let vehicle = || text(&event["data"]["vehicleId"]);
        match event["eventType"].as_str().unwrap() {
            "ProductionStarted" => drop(started.insert(vehicle(), hours(&event["data"]["startedAt"]))),
            "QualityCheckCompleted" => {
                let (vehicles, spans) = buckets.entry(day(&event["timestamp"])).or_default();
                spans.extend(started.get(&vehicle()).map(|start| hours(&event["timestamp"]) - start));
                vehicles.insert(vehicle());
            }
            _ => {}
        }
    }
    let row = |(vehicles, spans): (BTreeSet<String>, Vec<f64>)| {
        BTreeMap::from([
            ("vehicles_completed", json!(vehicles.len())),
            ("average_hours_per_vehicle", number(spans.iter().sum::<f64>() / spans.len() as f64)),
        ])
    };
    buckets.into_iter().map(|(day, bucket)| (day, row(bucket))).collect()
}

fn satisfaction(history: &str) -> Days {
    #[derive(Default)]
    struct Bucket {
        answers: Vec<i64>,
        scores: Vec<f64>,
        stars: Vec<f64>,
    }
    let mut buckets: BTreeMap<String, Bucket> = BTreeMap::new();
    for event in events(history) {
        let data = &event["data"];
        match event["eventType"].as_str().unwrap() {
            "SurveyCompleted" => {
                let asked = data["responses"].as_array().unwrap().iter().filter(|item| item["question"] == "nps");
                let answers = &mut buckets.entry(day(&data["completedAt"])).or_default().answers;
                answers.extend(asked.map(|item| item["answer"].as_i64().unwrap()));
            }
            "RatingProvided" => {
                buckets.entry(day(&data["providedAt"])).or_default().scores.push(data["score"].as_f64().unwrap());
            }
            "ReviewSubmitted" => {
                buckets.entry(day(&data["submittedAt"])).or_default().stars.push(data["rating"].as_f64().unwrap());
            }
            _ => {}
        }
    }
    let row = |bucket: Bucket| {
        let count = |test: fn(&i64) -> bool| bucket.answers.iter().filter(|answer| test(answer)).count() as f64;
        let (promoters, detractors) = (count(|answer| *answer >= 9), count(|answer| *answer <= 6));
        let share = |part: f64, of: usize| if of == 0 { Value::Null } else { number(part / of as f64) };
        let satisfied = bucket.scores.iter().filter(|score| **score >= 4.0).count() as f64;
        BTreeMap::from([
            ("nps", share(100.0 * (promoters - detractors), bucket.answers.len())),
            ("nps_answers", json!(bucket.answers.len())),
            ("promoters", json!(promoters as i64)),
            ("detractors", json!(detractors as i64)),
            ("csat", share(satisfied, bucket.scores.len())),
            ("ratings", json!(bucket.scores.len())),
            ("review_score", share(bucket.stars.iter().sum(), bucket.stars.len())),
            ("reviews", json!(bucket.stars.len())),
        ])
    };
    buckets.into_iter().map(|(day, bucket)| (day, row(bucket))).collect()
}
