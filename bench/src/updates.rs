//! `updates`: from the acknowledgement of a listing's new price to a search that finds it at that price, while others change,
//! against the same search with nothing to wait for.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use ingest::server::NatsServer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Client;
use schemas::field_type::format_timestamp;
use search_index::Listing;
use serde_json::{Value, json};

use bench::yardstick::{Better, Figure, ROUNDS, Recorder, quantile};

use crate::{freshness::send, search::listing, server::Server};

const LISTINGS: usize = 200_000;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(5);
/// How often a listing is followed, more or less: at any moment between two changes of the others.
const PROBE_EVERY: Duration = Duration::from_millis(30);
/// What is left out of the times at first: files are read for the first time.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn run(recorder: &mut Recorder) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        // Nobody asks for KPIs.
        let quiet = ["--retention", "off", "--close-periods-from", "2100-01-01"];
        let server = Server::start(&folder.path().join("data"), &nats.context().login_url(), &quiet)?;
        let measured = measure(recorder, &server, folder.path()).await;
        let stopped = server.stop();
        nats.stop().await;
        measured.and(stopped)
    })
}

async fn measure(recorder: &mut Recorder, server: &Server, folder: &Path) -> anyhow::Result<()> {
    let (url, client) = (server.url.as_str(), Client::new());
    let file = folder.join("listings.ndjson");
    write_listings(&file)?;
    server.backfill(&file)?;
    // What has come by now is behind this.
    let position = set_price(&client, url, 1, 100_000).await?;
    let deadline = Instant::now() + Duration::from_secs(600);
    let path = format!("{url}/v1/search?page_size=1&wait_ms=60000&min_position={position}");
    while !client.get(&path).send().await?.status().is_success() {
        ensure!(Instant::now() < deadline, "the index does not catch up with the log");
    }
    let mut random = ChaCha8Rng::from_os_rng();
    for _ in 0..ROUNDS {
        for (name, rate) in [("nothing else changes", 0_usize), ("1,000 changes/s", 1_000)] {
            let count = rate * (LASTS + WARM_UP).as_secs() as usize;
            // Listings that are followed have odd numbers.
            let load = (0..count)
                .map(|_| priced(random.random_range(0..LISTINGS / 2) * 2, random.random_range(3_000..60_000)));
            let load: Vec<Bytes> = load.collect();
            let seed = random.random();
            let (sent, waits) = tokio::join!(send(url, &load, rate), probe(url, ChaCha8Rng::seed_from_u64(seed)));
            sent?;
            let [shown, found, known] = waits?;
            for (what, times) in [("shown by its id", shown), ("found by its price", found)] {
                for (at, share) in [("p50", 0.5), ("p95", 0.95)] {
                    let name = format!("a new price until {what}, {name}, {at}");
                    let limit = "the same search, nothing to wait for";
                    let figure = Figure { name: &name, unit: "ms", better: Better::Lower, limit };
                    recorder.record(figure, quantile(times.clone(), share), quantile(known.clone(), share));
                }
            }
        }
    }
    Ok(())
}

async fn get(client: &Client, url: &str) -> anyhow::Result<Value> {
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// The events of every listing: what it is, its price, and that it may be seen.
fn write_listings(file: &Path) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let salt = uuid::Uuid::now_v7();
    for number in 0..LISTINGS {
        let listing = listing(&mut random, number);
        let (at, id) = (format_timestamp(listing.listed_at.unwrap_or_default()), &listing.listing_id);
        let Listing { title, make, model, trim, year, mileage, features, city, province, color, .. } = &listing;
        let created = json!({
            "listingId": id, "vehicleId": format!("veh-{number:07}"), "createdAt": at, "title": title, "make": make, "model": model, "trim": trim, "year": year,
            "mileage": mileage, "features": features, "city": city, "province": province, "color": color,
            "bodyType": listing.body_type, "fuelType": listing.fuel_type, "transmission": listing.transmission,
            "drivetrain": listing.drivetrain, "dealerName": listing.dealer_name, "seats": listing.seats,
            "latitude": listing.latitude, "longitude": listing.longitude,
        });
        let price = listing.price_cents.unwrap_or_default() / 100;
        let said = [
            ("VehicleListingCreated", created),
            ("PriceSet", json!({"listingId": id, "price": price, "currency": "CAD"})),
            ("ListingPublished", json!({"listingId": id, "publishedAt": at, "visibility": "public"})),
        ];
        for (event_type, data) in said {
            let event_id = format!("{event_type}-{number}-{salt}");
            let event = json!({"eventId": event_id, "eventType": event_type, "timestamp": at, "data": data});
            writeln!(out, "{event}")?;
        }
    }
    Ok(out.flush()?)
}

/// A new price of a listing.
fn priced(number: usize, price: u32) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let event = json!({
        "eventId": uuid::Uuid::now_v7(), "eventType": "PriceSet", "timestamp": format_timestamp(now as i64),
        "data": {"listingId": format!("lst-{number:07}"), "price": price, "currency": "CAD"},
    });
    format!("{event}\n").into()
}

/// Set a listing's price; the position of that.
async fn set_price(client: &Client, url: &str, number: usize, price: u32) -> anyhow::Result<u64> {
    let request = client.post(format!("{url}/v1/events")).body(priced(number, price));
    let answer: Value = request.send().await?.error_for_status()?.json().await?;
    answer["position"].as_u64().with_context(|| answer.to_string())
}

/// Set the price of one listing now and then, and ask for it by its id or search for it, in turn: how long that takes, and
/// how long a search takes once it is there.
async fn probe(url: &str, mut random: ChaCha8Rng) -> anyhow::Result<[Vec<f64>; 3]> {
    let (client, started) = (Client::new(), Instant::now());
    let mut times = [const { Vec::new() }; 3];
    for turn in 0.. {
        tokio::time::sleep(PROBE_EVERY.mul_f64(random.random_range(0.5..1.5))).await;
        if started.elapsed() > WARM_UP + LASTS {
            break;
        }
        let (number, price) = (random.random_range(0..LISTINGS / 2) * 2 + 1, random.random_range(100_000..9_000_000));
        let position = set_price(&client, url, number, price).await?;
        let (id, fresh) = (format!("lst-{number:07}"), format!("min_position={position}&wait_ms=10000"));
        let by_id = format!("{url}/v1/listings/{id}?{fresh}");
        let by_price = format!("{url}/v1/search?price_min={price}&price_max={price}&{fresh}");
        let asked: &[(usize, &str)] = if turn % 2 == 0 { &[(0, &by_id)] } else { &[(1, &by_price), (2, &by_price)] };
        for (which, path) in asked {
            let asked = Instant::now();
            let answer = get(&client, path).await?;
            let took = asked.elapsed();
            let mut hits = answer["hits"].as_array().map_or(std::slice::from_ref(&answer), Vec::as_slice).iter();
            let is_there = hits.any(|hit| hit["listing_id"] == *id && hit["price"] == price);
            ensure!(is_there, "{id} is not found at {price}: {answer}");
            if started.elapsed() > WARM_UP {
                times[*which].push(took.as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times)
}
