//! Distances on the Earth.

const EARTH_RADIUS_KM: f64 = 6_371.008_8;

/// A place, in degrees (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub latitude: f64,
    pub longitude: f64,
}

impl Place {
    /// A place on the Earth, or `None` for degrees that are none.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let valid = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        valid.then_some(Self { latitude, longitude })
    }

    /// Great-circle distance by the haversine formula, on a sphere of the Earth's mean radius (IUGG: 6371.0088 km).
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        let half_chord = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let h = half_chord(other.latitude - self.latitude)
            + self.latitude.to_radians().cos()
                * other.latitude.to_radians().cos()
                * half_chord(other.longitude - self.longitude);
        2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
    }
}

/// A place as a point of the unit sphere, to less than a metre: what is far and what is near is told without
/// trigonometry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point([f32; 3]);

impl Point {
    /// Within no distance of anything.
    pub(crate) const NOWHERE: Self = Self([f32::NAN; 3]);

    #[expect(clippy::cast_possible_truncation, reason = "it is exact enough")]
    pub(crate) fn of(place: Place) -> Self {
        let (latitude, longitude) = (place.latitude.to_radians(), place.longitude.to_radians());
        let point = [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()];
        Self(point.map(|coordinate| coordinate as f32))
    }
}

/// Points, coordinate by coordinate: so many are compared at once.
#[derive(Debug)]
pub(crate) struct Points([Vec<f32>; 3]);

impl Points {
    pub(crate) fn at(&self, at: usize) -> Point {
        Point(self.0.each_ref().map(|coordinates| coordinates[at]))
    }
}

impl FromIterator<Point> for Points {
    fn from_iter<T: IntoIterator<Item = Point>>(points: T) -> Self {
        let points = points.into_iter();
        let mut all = Self(std::array::from_fn(|_| Vec::with_capacity(points.size_hint().0)));
        for point in points {
            all.0.iter_mut().zip(point.0).for_each(|(coordinates, coordinate)| coordinates.push(coordinate));
        }
        all
    }
}

/// What is within a distance of a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    from: Point,
    /// Squares of the chords below which a point surely is within, and above which it surely is not.
    surely: [f32; 2],
}

impl Reach {
    #[expect(clippy::cast_possible_truncation, reason = "the margin is wider than what that takes")]
    pub(crate) fn new(from: Place, km: f64) -> Self {
        // Coordinates are wrong by 3e-8 at most, and so is their difference.
        const MARGIN: f64 = 1e-6;
        let chord = 2.0 * (km.max(0.0) / (2.0 * EARTH_RADIUS_KM)).min(std::f64::consts::FRAC_PI_2).sin();
        let surely = [(chord - MARGIN).max(0.0), chord + MARGIN].map(|chord| (chord * chord) as f32);
        Self { from: Point::of(from), surely }
    }

    /// Whether a point is within; none, when it is too near to the edge to tell.
    pub(crate) fn holds(&self, point: Point) -> Option<bool> {
        let apart = |at: usize| (point.0[at] - self.from.0[at]).powi(2);
        let chord = apart(0) + apart(1) + apart(2);
        let [within, beyond] = self.surely;
        if chord < within {
            Some(true)
        } else if chord > beyond || chord.is_nan() {
            Some(false)
        } else {
            None
        }
    }

    /// Of the next points from one on, which surely are within, and which may be.
    pub(crate) fn told<const NEXT: usize>(&self, points: &Points, from: usize) -> [[u8; NEXT]; 2] {
        let [xs, ys, zs] = points.0.each_ref().map(|coordinates| coordinates.get(from..).unwrap_or_default());
        let (mut surely, mut maybe) = ([0; NEXT], [0; NEXT]);
        let ([x0, y0, z0], [within, beyond]) = (self.from.0, self.surely);
        for ((((x, y), z), surely), maybe) in xs.iter().zip(ys).zip(zs).zip(&mut surely).zip(&mut maybe) {
            let chord = (x - x0).powi(2) + (y - y0).powi(2) + (z - z0).powi(2);
            *surely = u8::from(chord < within);
            *maybe = u8::from(chord <= beyond);
        }
        [surely, maybe]
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Point, Points, Reach};

    #[test]
    fn what_is_within_reach_is_told_as_by_the_distance() {
        let degrees = |from: i32, to: i32, step: usize| (from..=to).step_by(step).map(f64::from);
        let places: Vec<Place> = degrees(-90, 90, 15)
            .flat_map(|latitude| degrees(-180, 180, 20).filter_map(move |longitude| Place::new(latitude, longitude)))
            .flat_map(|place| [0.0, 0.001, 0.4].map(|off| Place { latitude: place.latitude * 0.99 + off, ..place }))
            .collect();
        let points: Points = places.iter().map(|place| Point::of(*place)).collect();
        let mut told = 0;
        for from in places.iter().step_by(7) {
            for km in [0.0, 0.05, 1.0, 44.4, 100.0, 5_000.0, 20_000.0, 30_000.0] {
                let reach = Reach::new(*from, km);
                let [surely, maybe]: [[u8; 64]; 2] = reach.told(&points, 64);
                for at in 64..128 {
                    let holds = reach.holds(points.at(at));
                    let told = (surely[at - 64] == 1, maybe[at - 64] == 1);
                    assert_eq!(told, (holds == Some(true), holds != Some(false)), "{at} {km}");
                }
                for place in &places {
                    if let Some(holds) = reach.holds(Point::of(*place)) {
                        assert_eq!(holds, from.distance_km(*place) <= km, "{from:?} {place:?} {km}");
                        told += 1;
                    }
                }
                assert_eq!(reach.holds(Point::NOWHERE), Some(false));
            }
        }
        assert!(told > 100_000, "{told}");
    }

    #[test]
    fn toronto_is_504_km_from_montreal() {
        let toronto = Place { latitude: 43.6532, longitude: -79.3832 };
        let montreal = Place { latitude: 45.5017, longitude: -73.5673 };
        assert!((toronto.distance_km(montreal) - 504.0).abs() < 2.0);
        assert_eq!(toronto.distance_km(toronto), 0.0);
    }
}
