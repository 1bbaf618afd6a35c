//! Spellings of a name: the catalogue's camelCase and PascalCase, the lake's snake_case, subject tokens.

/// `vehicleId` → `vehicle_id`, `AIOfferGenerated` → `ai_offer_generated`, `SMSSent` → `sms_sent`.
#[must_use]
pub fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, &letter) in letters.iter().enumerate() {
        if letter.is_ascii_uppercase() {
            let after_lower = i > 0 && !letters[i - 1].is_ascii_uppercase() && letters[i - 1] != '_';
            let before_lower =
                i > 0 && letters[i - 1] != '_' && letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
            if after_lower || before_lower {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        } else {
            snake.push(letter);
        }
    }
    snake
}

/// A value made safe as one token of a NATS subject: what a token may not hold becomes `_`.
///
/// Aggregate ids are also in the message, so nothing is lost by the replacement.
#[must_use]
pub fn subject_token(value: &str) -> String {
    /// NATS takes long subjects, but nobody reads them.
    const MAX_TOKEN: usize = 96;
    if value.is_empty() {
        return "_".to_owned();
    }
    value
        .chars()
        .take(MAX_TOKEN)
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>') { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{snake_case, subject_token};

    #[test]
    fn names_become_snake_case_and_acronyms_stay_together() {
        for (name, snake) in [
            ("vehicleId", "vehicle_id"),
            ("AIOfferGenerated", "ai_offer_generated"),
            ("SMSSent", "sms_sent"),
            ("VehicleSold", "vehicle_sold"),
            ("ipAddress", "ip_address"),
            ("nps", "nps"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[test]
    fn a_subject_token_never_splits_or_matches_a_subject() {
        assert_eq!(subject_token("veh.1 *>é"), "veh_1____");
        assert_eq!(subject_token(""), "_");
    }
}
