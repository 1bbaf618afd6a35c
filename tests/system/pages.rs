//! What a browser without scripts, and a search engine, are shown.

use datasets::Market;
use serde_json::{Value, json};

use crate::door::event;
use crate::support::{Forecourt, Nats, counted, eventually, finish, ids, ingest, market, written};

/// A page's status and text.
async fn page(forecourt: &Forecourt, path: &str) -> (u16, String) {
    let answer = forecourt.client.get(format!("{}{path}", forecourt.url)).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// What stands between `before` and `after`, each time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
}

/// The listings that a page links to, in order.
fn linked(text: &str) -> Vec<&str> {
    between(text, "class=\"cover\" href=\"/vehicles/", "\"")
        .into_iter()
        .map(|link| link.split('?').next().unwrap())
        .collect()
}

#[tokio::test]
async fn pages_show_what_the_api_says() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, &folder.path().join("data")).await;
    let empty = page(&forecourt, "/").await;
    assert!(empty.0 == 200 && empty.1.contains("No cars are on offer yet"), "{}", empty.1);
    let file = market(folder.path(), 21, 120, 180);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    let waiting = format!("min_position={position}&wait_ms=60000");

    // The first page, and the second by its link.
    let all = forecourt.get(&format!("/v1/search?{waiting}")).await;
    let (status, first) = page(&forecourt, &format!("/?{waiting}")).await;
    assert_eq!((status, linked(&first)), (200, ids(&all)));
    assert!(first.contains(&format!("{} cars", all["total"])), "{first}");
    let next = between(&first, "rel=\"next\" href=\"", "\"")[0].replace("&amp;", "&").replace("&#38;", "&");
    let second = page(&forecourt, &next).await.1;
    let cursor = all["next_cursor"].as_str().unwrap();
    assert_eq!(linked(&second), ids(&forecourt.get(&format!("/v1/search?cursor={cursor}")).await));

    // Every choice with its count; a choice is a chip, and its link takes it away.
    let make = all["facets"]["make"][0].clone();
    let (name, count) = (make["value"].as_str().unwrap(), make["count"].to_string());
    assert!(first.contains(&format!(
        "name=\"make\" id=\"make-1\" value=\"{name}\"><span class=\"name\">{name}</span><span class=\"count\">{count}<"
    )));
    let chosen = page(&forecourt, &format!("/?make={name}&sort=price")).await.1;
    assert_eq!(linked(&chosen), ids(&forecourt.get(&format!("/v1/search?make={name}&sort=price")).await));
    assert!(chosen.contains(&format!("value=\"{name}\" checked")));
    assert!(
        chosen.contains(&format!("<a href=\"/?sort=price\"><span class=\"hidden\">Remove </span>{name}</a>")),
        "{chosen}"
    );

    // A dead end helps on; the other language says so in its words.
    let nothing = page(&forecourt, &format!("/?make={name}&price_max=1&lang=fr")).await.1;
    assert!(nothing.contains("Aucune voiture ne répond") && nothing.contains("sans Prix"), "{nothing}");
    assert!(nothing.contains("<html lang=\"fr\">") && !linked(&nothing).is_empty());
    let french = forecourt.client.get(format!("{}/", forecourt.url)).header("accept-language", "fr-CA,en;q=0.5");
    assert!(french.send().await.unwrap().text().await.unwrap().contains("voitures"));

    // What somebody types is text, and what links elsewhere carry is left alone.
    let typed = page(&forecourt, "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&utm_source=mail").await;
    assert_eq!((typed.0, typed.1.contains("<script>alert")), (200, false));
    let wrong = page(&forecourt, "/?price_min=cheap").await;
    assert!(
        wrong.0 == 400 && wrong.1.contains("price_min is a number, not") && wrong.1.contains("<html"),
        "{}",
        wrong.1
    );
    // What cannot be used is left out, the rest is asked.
    let wrong =
        page(&forecourt, &format!("/?make={name}&sort=price&price_min=9&price_max=3&near=Atlantis&lang=fr")).await;
    assert!(wrong.0 == 400 && wrong.1.contains("a été laissé de côté") && wrong.1.contains("price_min is 9, more"));
    assert_eq!(wrong.1.matches("<br>").count(), 2, "{}", wrong.1);
    let rest = forecourt.get(&format!("/v1/search?make={name}&sort=price&price_max=3")).await;
    assert_eq!((&rest["total"], linked(&wrong.1).len()), (&json!(0), rest["near_misses"].as_array().unwrap().len()));

    // What is written after a choice counts, here; asked of the API, the parameter does.
    let other = all["facets"]["make"][1]["value"].as_str().unwrap();
    let rewritten = page(&forecourt, &format!("/?make={name}&q={other}&sort=price")).await.1;
    assert_eq!(linked(&rewritten), ids(&forecourt.get(&format!("/v1/search?make={other}&sort=price")).await));
    assert!(!rewritten.contains(&format!("value=\"{name}\" checked")), "{rewritten}");
    let asked = forecourt.get(&format!("/v1/search?price_max=20000&q={other}+under+30k")).await;
    assert_eq!(asked["passed_over"], json!([{"text": "under 30k", "parameters": {"price_max": 30_000.0}}]));
    let both = forecourt.get(&format!("/v1/search?price_max=20000&make={other}")).await;
    assert_eq!(asked["total"], both["total"]);

    // The last page says so; and what a text says stands in the form.
    let some = all["total"].as_u64().unwrap().min(100);
    let whole = forecourt.get(&format!("/v1/search?page_size={some}")).await;
    assert_eq!(whole["next_cursor"] == Value::Null, all["total"] == some, "{some} of {}", all["total"]);
    let read = page(&forecourt, "/?q=no+accidents+under+20k+under+%24600%2Fmonth").await.1;
    for field in [
        "name=\"accident_free\" id=\"accident_free\" value=\"true\" checked",
        "id=\"price_max\" value=\"20000\"",
        "id=\"payment_max\" value=\"600\"",
    ] {
        assert!(read.contains(field), "{field} is not in {read}");
    }
}

#[tokio::test]
async fn a_car_has_a_page_that_people_and_search_engines_read() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, &folder.path().join("data")).await;
    let file = market(folder.path(), 22, 150, 120);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    let all = forecourt.get(&format!("/v1/search?min_position={position}&wait_ms=60000&page_size=100")).await;
    let id = ids(&all)[0];
    let listing = forecourt.get(&format!("/v1/listings/{id}")).await;
    let (status, shown) = page(&forecourt, &format!("/vehicles/{id}")).await;
    assert_eq!(status, 200);
    assert!(shown.contains(&format!("<title>{} – Forecourt</title>", listing["title"].as_str().unwrap())), "{shown}");
    let read: Value =
        serde_json::from_str(between(&shown, "<script type=\"application/ld+json\">", "</script>")[0]).unwrap();
    assert_eq!((&read["@type"], &read["name"]), (&json!("Vehicle"), &listing["title"]));
    assert_eq!((&read["offers"]["price"], &read["offers"]["priceCurrency"]), (&listing["price"], &listing["currency"]));
    assert_eq!(read["url"], json!(format!("{}/vehicles/{id}", forecourt.url)));
    let history = forecourt.get(&format!("/v1/listings/{id}/price-history")).await;
    let rows = between(&shown, "<tr><td>", "</td>").len();
    assert_eq!(rows, history["prices"].as_array().unwrap().len());
    let similar = forecourt.get(&format!("/v1/listings/{id}/similar?limit=6")).await;
    assert_eq!(linked(&shown), ids(&similar));

    // The way back leads to the results that it was found in, here alone.
    let come_from = async |from: &str| {
        let asked = forecourt.client.get(format!("{}/vehicles/{id}", forecourt.url)).header("referer", from);
        let shown = asked.send().await.unwrap().text().await.unwrap();
        between(&shown, "<p class=\"soft\"><a href=\"", "\"")[0].replace("&#38;", "&").to_owned()
    };
    let results = format!("{}/?make=Honda&sort=price", forecourt.url);
    assert_eq!(come_from(&results).await, "/?make=Honda&sort=price");
    assert_eq!(come_from("https://example.org/?make=Honda").await, "/");

    // Sold cars say so, and are not what search engines look for.
    let sold = "SELECT listing_id FROM current.listings WHERE status = 'sold' LIMIT 1";
    let sold = forecourt.sql(sold, position).await[0][0].as_str().unwrap().to_owned();
    let (status, shown) = page(&forecourt, &format!("/vehicles/{sold}")).await;
    assert!(status == 200 && shown.contains("<b>Sold</b>") && shown.contains("SoldOut"), "{shown}");
    let unknown = page(&forecourt, "/vehicles/nobody%2Fknows?lang=fr").await;
    assert!(unknown.0 == 404 && unknown.1.contains("Cette voiture n&#39;existe pas ici."), "{}", unknown.1);

    let index = page(&forecourt, "/sitemap.xml").await.1;
    assert_eq!(between(&index, "<loc>", "</loc>"), [format!("{}/sitemaps/1", forecourt.url)]);
    let mut public = Vec::new();
    let mut cursor = String::new();
    loop {
        let found = forecourt.get(&format!("/v1/search?page_size=100{cursor}")).await;
        public.extend(ids(&found).into_iter().map(str::to_owned));
        let Some(next) = found["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    public.sort();
    // It is made anew within some seconds of the listings.
    eventually("the sitemap having every listing", || async {
        let map = page(&forecourt, "/sitemaps/1").await.1;
        let ids: Vec<&str> = between(&map, "/vehicles/", "</loc>");
        (ids == public).then_some(())
    })
    .await;
    assert_eq!(page(&forecourt, "/sitemaps/2").await.0, 404);
    assert!(page(&forecourt, "/robots.txt").await.1.contains(&format!("Sitemap: {}/sitemap.xml", forecourt.url)));
}

/// Each rating is what its numbers say, the counts are those of the listings, and the order is by how good they are.
#[tokio::test]
async fn prices_are_rated_against_the_market() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, &folder.path().join("data")).await;
    // Dealers ask more and less than what a car is worth.
    let market = Market { stock: 600, ..Market::new(23, 1_767_225_600_000_000, 120, 100) };
    let file = written(folder.path(), &market);
    let position = counted(&finish(ingest(&file, &forecourt.url)), "position");
    let query = format!("/v1/search?sort=deal&page_size=100&facets=deal&min_position={position}&wait_ms=60000");
    let rated = eventually("prices being compared", || async {
        let found = forecourt.get(&query).await;
        let counts = found["facets"]["deal"].as_array().unwrap();
        // The market is of all listings, and stays so.
        let is_whole = found["rated_as_of"]["position"].as_u64() >= Some(position);
        (is_whole && counts.iter().any(|count| count["value"] == "great")).then_some(found)
    })
    .await;
    let counts = rated["facets"]["deal"].as_array().unwrap();
    assert_eq!(
        counts.iter().map(|count| count["count"].as_u64().unwrap()).sum::<u64>(),
        rated["total"].as_u64().unwrap()
    );
    let shares: Vec<f64> = rated["hits"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|hit| hit["deal"] != "unrated")
        .map(|hit| hit["price"].as_f64().unwrap() / hit["fair_price"].as_f64().unwrap())
        .collect();
    assert!(shares.len() > 5 && shares.windows(2).all(|pair| pair[0] <= pair[1] + 1e-3), "{shares:?}");
    for deal in ["great", "good", "fair", "high", "overpriced", "unrated"] {
        let found = forecourt.get(&format!("/v1/search?deal={deal}&page_size=100")).await;
        let count =
            counts.iter().find(|count| count["value"] == deal).map_or(0, |count| count["count"].as_u64().unwrap());
        assert_eq!(found["total"], json!(count), "{deal}");
        assert!(found["hits"].as_array().unwrap().iter().all(|hit| hit["deal"] == deal), "{deal}");
    }
    let hit = &rated["hits"][0];
    let id = hit["listing_id"].as_str().unwrap();
    let rating = forecourt.get(&format!("/v1/listings/{id}")).await["deal_rating"].clone();
    let (price, fair) = (hit["price"].as_f64().unwrap(), hit["fair_price"].as_f64().unwrap());
    assert_eq!((&rating["deal"], &rating["fair_price"]), (&hit["deal"], &hit["fair_price"]));
    assert!((rating["difference"].as_f64().unwrap() - (price - fair)).abs() <= 1.0, "{rating}");
    assert!(
        rating["comparables"].as_u64().unwrap() >= 5 && rating["reason"].as_str().unwrap().contains("below"),
        "{rating}"
    );
}

/// What an event says is text on a page, wherever it stands.
#[tokio::test]
async fn what_a_seller_writes_is_text_on_every_page() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::start().await;
    let forecourt = Forecourt::start(&nats, folder.path()).await;
    let hostile = "</script></svg>\"'><script>alert(1)</script>";
    let listing = json!({
        "listingId": "lst-1", "vehicleId": "veh-1", "make": hostile, "model": hostile, "year": 2021, "title": hostile,
        "description": hostile, "city": hostile, "color": hostile, "dealerName": hostile, "features": [hostile],
        "photos": [format!("https://{hostile}"), "javascript:alert(1)"]
    });
    let price = |cents: i64| json!({"listingId": "lst-1", "price": cents, "currency": hostile});
    let mut lowered = event("e-4", "PriceSet", "lst-1", price(9_000));
    lowered["timestamp"] = json!("2026-11-03T08:30:00Z");
    let events = [
        event("e-1", "VehicleListingCreated", "lst-1", listing),
        event("e-2", "PriceSet", "lst-1", price(10_000)),
        event("e-3", "ListingPublished", "lst-1", json!({"listingId": "lst-1"})),
        lowered,
    ];
    let (_, report) = forecourt.publish(events.map(|event| event.to_string()).join("\n")).await;
    assert_eq!(report["accepted"], 4, "{report}");
    let waiting = format!("min_position={}&wait_ms=60000", report["position"]);
    for path in ["/", "/vehicles/lst-1", "/?q=script", "/?q=alert&price_max=1"] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let (status, shown) = page(&forecourt, &format!("{path}{sign}{waiting}")).await;
        assert!(status == 200 && shown.contains("alert"), "{path}: {shown}");
        assert!(!shown.contains("<script>alert") && !shown.contains("javascript:"), "{path}: {shown}");
        // Every script is closed by its own end alone.
        assert_eq!(shown.matches("<script").count(), shown.matches("</script>").count(), "{path}: {shown}");
    }
}
