use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Car, Kind, PriceModel};

/// A market by a formula: two makes of three models, of two trims each, in three places; `wrong` of them have any price.
fn market(count: usize, wrong: f64) -> Vec<(Car, f64)> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let offers = (0..count).map(|_| {
        let car = Car {
            make: random.random_range(0..2),
            model: random.random_range(0..3),
            trim: Some(random.random_range(0..2)),
            body: None,
            province: Some(random.random_range(0..3)),
            year: random.random_range(2012..2026),
            mileage: Some(random.random_range(0.0..250_000.0)),
        };
        let price = if random.random_bool(wrong) { random.random_range(1.0..300_000.0) } else { worth(&car) };
        (car, price * random.random_range(0.95..1.05))
    });
    offers.collect()
}

fn worth(car: &Car) -> f64 {
    let age = 2026.5 - f64::from(car.year);
    let new = 25_000.0 * (1.0 + f64::from(car.make) * 0.6) * (1.0 + f64::from(car.model) * 0.3);
    let trim = 1.0 + f64::from(car.trim.unwrap_or_default()) * 0.15;
    let place = 1.0 + f64::from(car.province.unwrap_or_default()) * 0.05;
    // The second make loses its value more slowly.
    let slope = 0.11 - f64::from(car.make) * 0.03;
    new * trim * place * (-slope * age - car.mileage.unwrap_or_default() / 500_000.0).exp()
}

#[test]
fn prices_that_follow_a_rule_are_estimated_and_wrong_ones_do_not_mislead() {
    for (wrong, most) in [(0.0, 0.04), (0.1, 0.05)] {
        let offers = market(3_000, wrong);
        let model = PriceModel::learn(&offers, 2026.5);
        for (car, _) in &offers {
            let estimate = model.estimate(car).unwrap();
            let error = (estimate.price / worth(car) - 1.0).abs();
            assert!(error < 4.0 * most, "{car:?} is worth {} and not {}", worth(car), estimate.price);
        }
        let held_out = PriceModel::held_out([offers.as_slice()].into_iter(), 2026.5).unwrap();
        assert!(held_out.median_error < most && held_out.listings > 500, "{held_out:?}");
    }
}

#[test]
fn where_few_are_like_a_car_nothing_is_said_of_its_price() {
    let offers = market(3_000, 0.0);
    let few: Vec<_> = offers.iter().filter(|(car, _)| car.model != 2).chain(&offers[..4]).copied().collect();
    let model = PriceModel::learn(&few, 2026.5);
    let of = |model: u32, year: i32| Car { trim: Some(9), body: None, ..car(model, year) };
    assert_eq!(model.estimate(&of(2, 2020)), None);
    assert_eq!(model.estimate(&of(7, 2020)), None);
    assert_eq!(model.estimate(&of(1, 1990)), None);
    assert_eq!((model.estimate(&of(1, i32::MAX)), model.estimate(&of(1, i32::MIN))), (None, None));
    // A trim that nobody offers is compared with the model's others.
    let estimate = model.estimate(&of(1, 2020)).unwrap();
    let years = 2018..=2022;
    let others = few.iter().filter(|(car, _)| (car.make, car.model) == (0, 1) && years.contains(&car.year)).count();
    assert_eq!((usize::try_from(estimate.comparables).unwrap(), estimate.kind), (others, Kind::Model));
}

fn car(model: u32, year: i32) -> Car {
    Car { make: 0, model, trim: None, body: None, province: None, year, mileage: None }
}

/// A model that few offer is compared with the make's others of its body.
#[test]
fn where_few_are_of_a_model_others_of_its_make_and_body_are_compared() {
    let mut offers = market(3_000, 0.0);
    for (car, _) in &mut offers {
        car.body = Some(car.model.min(1));
    }
    offers.retain(|(car, _)| car.model != 2 || car.make == 1);
    let rare = offers.iter().filter(|(car, _)| (car.make, car.model) == (1, 2)).take(2).copied().collect::<Vec<_>>();
    offers.retain(|(car, _)| car.model != 2);
    offers.extend(&rare);
    let model = PriceModel::learn(&offers, 2026.5);
    let wanted = Car { make: 1, body: Some(1), mileage: Some(60_000.0), trim: Some(0), ..car(2, 2020) };
    let estimate = model.estimate(&wanted).unwrap();
    let years = 2018..=2022;
    let like = |car: &Car| car.make == 1 && car.body == Some(1) && years.contains(&car.year);
    let others = offers.iter().filter(|(car, _)| like(car)).count();
    assert_eq!((usize::try_from(estimate.comparables).unwrap(), estimate.kind), (others, Kind::Body));
    assert!((estimate.price / worth(&wanted) - 1.0).abs() < 0.25, "{estimate:?} {}", worth(&wanted));
}

#[test]
fn an_empty_market_knows_nothing() {
    let model = PriceModel::learn(&[], 2026.5);
    assert_eq!((model.estimate(&car(0, 2020)), PriceModel::held_out(std::iter::empty(), 2026.5)), (None, None));
}
