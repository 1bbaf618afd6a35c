//! The models, places and names there are. Prices and places are round assumptions; the people are invented.

/// A model as it was new.
pub(crate) struct Model {
    pub(crate) make: &'static str,
    pub(crate) model: &'static str,
    pub(crate) trims: &'static [&'static str],
    pub(crate) body: &'static str,
    pub(crate) fuel: &'static str,
    pub(crate) drivetrain: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) seats: i64,
    /// New, in CAD, in the lowest trim.
    pub(crate) price: f64,
}

const fn model(
    (make, model): (&'static str, &'static str),
    trims: &'static [&'static str],
    (body, fuel, drivetrain): (&'static str, &'static str, &'static str),
    (engine, seats): (&'static str, i64),
    price: f64,
) -> Model {
    Model { make, model, trims, body, fuel, drivetrain, engine, seats, price }
}

pub(crate) const MODELS: [Model; 24] = [
    model(("Honda", "Civic"), &["LX", "EX", "Touring"], ("Sedan", "Gasoline", "FWD"), ("2.0L I4", 5), 27_000.0),
    model(("Honda", "CR-V"), &["LX", "EX-L", "Touring"], ("SUV", "Gasoline", "AWD"), ("1.5L Turbo I4", 5), 37_000.0),
    model(("Honda", "Accord"), &["EX", "Sport", "Touring"], ("Sedan", "Hybrid", "FWD"), ("2.0L Hybrid", 5), 39_000.0),
    model(("Toyota", "Corolla"), &["L", "LE", "XSE"], ("Sedan", "Gasoline", "FWD"), ("1.8L I4", 5), 24_000.0),
    model(("Toyota", "RAV4"), &["LE", "XLE", "Limited"], ("SUV", "Hybrid", "AWD"), ("2.5L Hybrid", 5), 38_000.0),
    model(("Toyota", "Sienna"), &["LE", "XSE", "Limited"], ("Van", "Hybrid", "AWD"), ("2.5L Hybrid", 8), 48_000.0),
    model(
        ("Toyota", "Tacoma"),
        &["SR5", "TRD Sport", "TRD Off-Road"],
        ("Truck", "Gasoline", "4WD"),
        ("3.5L V6", 5),
        47_000.0,
    ),
    model(("Ford", "F-150"), &["XL", "XLT", "Lariat"], ("Truck", "Gasoline", "4WD"), ("3.5L V6", 5), 56_000.0),
    model(("Ford", "Escape"), &["S", "SE", "Titanium"], ("SUV", "Gasoline", "AWD"), ("1.5L Turbo I3", 5), 33_000.0),
    model(
        ("Ford", "Mustang Mach-E"),
        &["Select", "Premium", "GT"],
        ("SUV", "Electric", "AWD"),
        ("Dual motor", 5),
        58_000.0,
    ),
    model(
        ("Chevrolet", "Bolt EV"),
        &["LT", "Premier"],
        ("Hatchback", "Electric", "FWD"),
        ("Single motor", 5),
        41_000.0,
    ),
    model(("Chevrolet", "Equinox"), &["LS", "LT", "RS"], ("SUV", "Gasoline", "AWD"), ("1.5L Turbo I4", 5), 34_000.0),
    model(
        ("Chevrolet", "Silverado 1500"),
        &["WT", "LT", "LTZ"],
        ("Truck", "Gasoline", "4WD"),
        ("5.3L V8", 6),
        58_000.0,
    ),
    model(
        ("Hyundai", "Elantra"),
        &["Essential", "Preferred", "Luxury"],
        ("Sedan", "Gasoline", "FWD"),
        ("2.0L I4", 5),
        23_000.0,
    ),
    model(
        ("Hyundai", "Tucson"),
        &["Essential", "Preferred", "Ultimate"],
        ("SUV", "Gasoline", "AWD"),
        ("2.5L I4", 5),
        34_000.0,
    ),
    model(
        ("Hyundai", "Ioniq 5"),
        &["Essential", "Preferred", "Ultimate"],
        ("SUV", "Electric", "AWD"),
        ("Dual motor", 5),
        56_000.0,
    ),
    model(("Kia", "Sportage"), &["LX", "EX", "SX"], ("SUV", "Gasoline", "AWD"), ("2.5L I4", 5), 34_000.0),
    model(("Kia", "Soul"), &["LX", "EX", "GT-Line"], ("Hatchback", "Gasoline", "FWD"), ("2.0L I4", 5), 25_000.0),
    model(("Mazda", "CX-5"), &["GX", "GS", "GT"], ("SUV", "Gasoline", "AWD"), ("2.5L I4", 5), 36_000.0),
    model(("Mazda", "MX-5"), &["GS", "GS-P", "GT"], ("Convertible", "Gasoline", "RWD"), ("2.0L I4", 2), 38_000.0),
    model(("Nissan", "Rogue"), &["S", "SV", "Platinum"], ("SUV", "Gasoline", "AWD"), ("1.5L Turbo I3", 5), 35_000.0),
    model(
        ("Volkswagen", "Golf"),
        &["Comfortline", "Highline", "GTI"],
        ("Hatchback", "Gasoline", "FWD"),
        ("2.0L Turbo I4", 5),
        33_000.0,
    ),
    model(
        ("Tesla", "Model 3"),
        &["Standard", "Long Range", "Performance"],
        ("Sedan", "Electric", "AWD"),
        ("Dual motor", 5),
        60_000.0,
    ),
    model(("BMW", "X3"), &["xDrive30i", "M40i"], ("SUV", "Gasoline", "AWD"), ("2.0L Turbo I4", 5), 61_000.0),
];

/// City, province, latitude, longitude.
pub(crate) const CITIES: [(&str, &str, f64, f64); 16] = [
    ("Toronto", "ON", 43.6532, -79.3832),
    ("Mississauga", "ON", 43.5890, -79.6441),
    ("Ottawa", "ON", 45.4215, -75.6972),
    ("Hamilton", "ON", 43.2557, -79.8711),
    ("London", "ON", 42.9849, -81.2453),
    ("Kitchener", "ON", 43.4516, -80.4925),
    ("Montreal", "QC", 45.5017, -73.5673),
    ("Quebec City", "QC", 46.8139, -71.2080),
    ("Halifax", "NS", 44.6488, -63.5752),
    ("Moncton", "NB", 46.0878, -64.7782),
    ("Winnipeg", "MB", 49.8951, -97.1384),
    ("Regina", "SK", 50.4452, -104.6189),
    ("Calgary", "AB", 51.0447, -114.0719),
    ("Edmonton", "AB", 53.5461, -113.4938),
    ("Vancouver", "BC", 49.2827, -123.1207),
    ("Victoria", "BC", 48.4284, -123.3656),
];

pub(crate) const COLORS: [&str; 9] = ["White", "Black", "Grey", "Silver", "Blue", "Red", "Green", "Brown", "Orange"];
pub(crate) const INTERIORS: [&str; 4] = ["Black", "Grey", "Beige", "Brown"];
pub(crate) const CONDITIONS: [&str; 4] = ["excellent", "good", "good", "fair"];
pub(crate) const FEATURES: [&str; 14] = [
    "Heated Seats",
    "Sunroof",
    "Backup Camera",
    "Blind Spot Monitor",
    "Apple CarPlay",
    "Android Auto",
    "Navigation",
    "Leather Seats",
    "Remote Start",
    "Adaptive Cruise Control",
    "Roof Rack",
    "Tow Package",
    "Alloy Wheels",
    "Keyless Entry",
];
pub(crate) const FIRST_NAMES: [&str; 12] =
    ["Ada", "Bilal", "Chantal", "Devon", "Elena", "Farid", "Grace", "Hiro", "Imani", "Jules", "Kavya", "Liam"];
pub(crate) const LAST_NAMES: [&str; 12] =
    ["Archer", "Bouchard", "Chen", "Dubois", "Eze", "Fraser", "Gill", "Haddad", "Ivanov", "Joshi", "Kim", "Lavoie"];
