use super::{Meaning, Overrules, Reading};
use crate::{
    lexicon::{Lexicon, tests::lexicon},
    query::{Bounds, Facet, Range, SearchRequest},
};

fn market() -> Lexicon {
    use Facet::{BodyType, City, Color, Drivetrain, Features, FuelType, Make, Model, Province, Transmission};
    lexicon(&[
        (&[(Make, "Honda")], 50),
        (&[(Make, "Mazda")], 40),
        (&[(Make, "Land Rover")], 40),
        (&[(Make, "Peugeot")], 4),
        (&[(Make, "Volkswagen")], 4),
        (&[(Make, "Honda"), (Model, "Civic")], 30),
        (&[(Make, "Honda"), (Model, "Civic Hatchback")], 3),
        (&[(Make, "Mazda"), (Model, "3")], 30),
        (&[(Make, "Peugeot"), (Model, "2008")], 2),
        (&[(Make, "Ford"), (Model, "F-150")], 2),
        (&[(BodyType, "Truck")], 9),
        (&[(BodyType, "SUV")], 9),
        (&[(FuelType, "Electric")], 9),
        (&[(FuelType, "Gasoline")], 9),
        (&[(Transmission, "Automatic")], 9),
        (&[(Drivetrain, "4WD")], 9),
        (&[(Color, "Blue")], 9),
        (&[(Color, "Dark Blue")], 2),
        (&[(Features, "Heated seats")], 9),
        (&[(Features, "Panoramic sunroof")], 5),
        (&[(Features, "Sunroof")], 5),
        (&[(Province, "Ontario"), (City, "Toronto")], 9),
        (&[(Province, "Ontario"), (City, "Thunder Bay")], 9),
    ])
}

/// What is read of a text, in short, and what is left of it.
fn read(text: &str) -> (Vec<String>, String) {
    let (reading, _) = Reading::of(text, &market(), &mut SearchRequest::default(), Overrules::Filter);
    let number = |bound: Option<f64>| bound.map_or(String::new(), |bound| bound.to_string());
    let short = |means: &Meaning| match means {
        Meaning::Values(facet, values) => format!("{}={}", facet.name(), values.join("|")),
        Meaning::Bounds(range, Bounds { min, max }) => format!("{}={}..{}", range.name(), number(*min), number(*max)),
        Meaning::Payment(monthly) => format!("payment<={monthly}"),
        Meaning::Near { city, radius_km, .. } => format!("near={city}:{radius_km}"),
        Meaning::OwnersMax(most) => format!("owners<={most}"),
        Meaning::AccidentFree => "accident_free".to_owned(),
        Meaning::PriceDrop => "price_drop".to_owned(),
    };
    (reading.read.iter().map(|read| short(&read.means)).collect(), reading.text)
}

#[test]
fn texts_are_read_as_filters_and_what_is_left() {
    let cases: &[(&str, &[&str], &str)] = &[
        (
            "blue 2019 civic under 20k near toronto less than 80000 km automatic",
            &[
                "color=Blue|Dark Blue",
                "year=2019..2019",
                "model=Civic|Civic Hatchback",
                "price=..20000",
                "near=Toronto:50",
                "mileage=..80000",
                "transmission=Automatic",
            ],
            "",
        ),
        ("Civics 2018-2020", &["model=Civic|Civic Hatchback", "year=2018..2020"], ""),
        ("civic 2018 to 2020", &["model=Civic|Civic Hatchback", "year=2018..2020"], ""),
        ("2018 or newer", &["year=2018.."], ""),
        ("2019 or 2020 civic", &["year=2019..2020", "model=Civic|Civic Hatchback"], ""),
        ("2021 or 2018 honda", &["year=2018..2021", "make=Honda"], ""),
        ("honda 2019 or mazda 2020", &["make=Honda", "year=2019..2019", "make=Mazda"], "2020"),
        ("2018+ honda", &["year=2018..", "make=Honda"], ""),
        ("newer than 2018 older than 2021", &["year=2019..", "year=..2020"], ""),
        ("$15,000 - $20,000", &["price=15000..20000"], ""),
        ("between 15k and 20k", &["price=15000..20000"], ""),
        ("15-20k", &["price=15000..20000"], ""),
        ("over 10k under 20k", &["price=10000..", "price=..20000"], ""),
        ("under $400/month", &["payment<=400"], ""),
        ("400 a month", &["payment<=400"], ""),
        ("less than 50k km", &["mileage=..50000"], ""),
        ("under 50,000 miles", &["mileage=..80467"], ""),
        ("mazda 3", &["make=Mazda", "model=3"], ""),
        ("3 for sale", &[], "3"),
        ("used cars", &[], ""),
        ("peugeot 2008", &["make=Peugeot", "model=2008"], ""),
        ("honda 2008", &["make=Honda", "year=2008..2008"], ""),
        ("vw", &["make=Volkswagen"], ""),
        ("land rover", &["make=Land Rover"], ""),
        ("f-150", &["model=F-150"], ""),
        ("electric pickup", &["fuel_type=Electric", "body_type=Truck"], ""),
        ("ev with sunroof", &["fuel_type=Electric", "features=Panoramic sunroof|Sunroof"], ""),
        ("4x4 with heated seats", &["drivetrain=4WD", "features=Heated seats"], ""),
        ("suv in thunder bay", &["body_type=SUV", "city=Thunder Bay"], ""),
        ("within 100 km of Toronto", &["near=Toronto:100"], ""),
        ("near atlantis", &[], "near atlantis"),
        ("one owner no accidents honda", &["owners<=1", "accident_free", "make=Honda"], ""),
        ("certified reduced suv", &["certified=true", "price_drop", "body_type=SUV"], ""),
        ("7 seater suv", &["seats=7", "body_type=SUV"], ""),
        ("seven seats suv", &["seats=7", "body_type=SUV"], ""),
        ("two cars", &[], "two"),
        ("red or blue honda or mazda", &["color=Blue|Dark Blue", "make=Honda", "make=Mazda"], "red"),
        ("sunroof heated seats", &["features=Panoramic sunroof|Sunroof"], "heated seats"),
        ("30,000-50,000 miles", &["mileage=48280..80467"], ""),
        ("$500-$60,000", &["price=500..60000"], ""),
        ("0-20k", &["price=0..20000"], ""),
        ("between 2000 and 8000", &["price=2000..8000"], ""),
        ("ram 1500 and 2500", &[], "ram 1500 2500"),
        ("under 99999999999999999999999", &[], "under 99999999999999999999999"),
        ("rust free project", &[], "rust free project"),
        ("under", &[], "under"),
        ("", &[], ""),
        ("🚗 €", &[], "🚗 €"),
    ];
    for (text, expected, left) in cases {
        let (read, rest) = read(text);
        assert_eq!(read, *expected, "{text}");
        assert_eq!(rest, *left, "{text}");
    }
}

#[test]
fn what_is_asked_already_is_not_read() {
    let mut request = SearchRequest::default();
    request.filters.insert(Facet::Make, vec!["Mazda".to_owned()]);
    request.ranges.insert(Range::Price, Bounds { min: None, max: Some(9_000.0) });
    // A make is found as text; a bound cannot be, and is the one that was given.
    let read = |text: &str| Reading::of(text, &market(), &mut request.clone(), Overrules::Filter).0;
    let reading = read("honda 3 under 20k");
    assert_eq!(reading.text, "honda");
    assert_eq!(reading.read.len(), 1, "{reading:?}");
    assert_eq!(reading.passed_over[0].words, "under 20k");
    let reading = read("over 5k");
    assert_eq!(reading.read.len(), 1, "the other end is free: {reading:?}");
    let reading = read("5k-8k");
    let free = Bounds { min: Some(5_000.0), max: None };
    assert_eq!(reading.read[0].means, Meaning::Bounds(Range::Price, free), "{reading:?}");
}

/// What was chosen before, and the words that are written then: what they say otherwise is gone, the rest is kept.
#[test]
fn words_that_are_written_after_a_choice_count() {
    let choices = || {
        let mut request = SearchRequest::default();
        for (facet, value) in
            [(Facet::Make, "Mazda"), (Facet::Model, "3"), (Facet::Color, "Blue"), (Facet::Features, "Sunroof")]
        {
            request.filters.insert(facet, vec![value.to_owned()]);
        }
        request.ranges.insert(Range::Price, Bounds { min: Some(4_000.0), max: Some(9_000.0) });
        request.ranges.insert(Range::Year, Bounds { min: Some(2_019.0), max: Some(2_019.0) });
        request.owners_max = Some(3);
        request
    };
    let cases: &[(&str, &[&str], &str)] = &[
        ("honda", &["make", "model"], ""),
        ("civic", &["make", "model"], ""),
        ("mazda 3", &["make", "model"], ""),
        ("3", &["make", "model"], ""),
        ("electric", &[], ""),
        ("heated seats", &[], "heated seats"),
        ("under 8k", &["price_max"], ""),
        ("under 3k", &["price_min", "price_max"], ""),
        ("over 12k", &["price_min", "price_max"], ""),
        ("2021", &["year_min", "year_max"], ""),
        ("one owner", &["owners_max"], ""),
        ("rare", &[], "rare"),
    ];
    for (text, expected, left) in cases {
        let mut request = choices();
        let (reading, overruled) = Reading::of(text, &market(), &mut request, Overrules::Words);
        assert_eq!(
            (overruled.as_slice(), reading.text.as_str()),
            (&expected.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], *left),
            "{text}"
        );
        reading.ask(&mut request, |monthly| monthly);
        assert!(request.filters.contains_key(&Facet::Color), "{text}");
    }
}
