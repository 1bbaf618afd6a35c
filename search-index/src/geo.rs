//! Distances on the Earth.

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
        const EARTH_RADIUS_KM: f64 = 6_371.008_8;
        let half_chord = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let h = half_chord(other.latitude - self.latitude)
            + self.latitude.to_radians().cos()
                * other.latitude.to_radians().cos()
                * half_chord(other.longitude - self.longitude);
        2.0 * EARTH_RADIUS_KM * h.sqrt().min(1.0).asin()
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn toronto_is_504_km_from_montreal() {
        let toronto = Place { latitude: 43.6532, longitude: -79.3832 };
        let montreal = Place { latitude: 45.5017, longitude: -73.5673 };
        assert!((toronto.distance_km(montreal) - 504.0).abs() < 2.0);
        assert_eq!(toronto.distance_km(toronto), 0.0);
    }
}
