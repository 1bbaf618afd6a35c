//! Labels in both languages, and numbers as each writes them.

use std::{collections::HashMap, sync::LazyLock};

/// By key: English, French.
static WORDS: LazyLock<HashMap<String, [String; 2]>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../pages/words.json")).unwrap_or_default());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    French,
}

impl Language {
    pub(crate) fn parse(code: &str) -> Option<Self> {
        [Self::English, Self::French].into_iter().find(|language| language.code() == code)
    }

    /// The first of the two that an `Accept-Language` header names.
    pub(crate) fn preferred(accepted: &str) -> Self {
        let codes = accepted.split(',').map(|code| code.trim().get(..2).unwrap_or_default().to_lowercase());
        codes.filter_map(|code| Self::parse(&code)).next().unwrap_or(Self::English)
    }

    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::English => Self::French,
            Self::French => Self::English,
        }
    }

    /// A whole number with its thousands apart.
    pub(crate) fn number(self, value: i64) -> String {
        let digits = value.unsigned_abs().to_string();
        let apart = match self {
            Self::English => ",",
            Self::French => "\u{202f}",
        };
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push_str(apart);
            }
            text.push(digit);
        }
        if value < 0 { format!("−{text}") } else { text }
    }

    /// An amount in whole units. Canada's dollars need no other name here.
    pub(crate) fn money(self, value: f64, currency: Option<&str>) -> String {
        #[expect(clippy::cast_possible_truncation, reason = "an amount of decimal(12,2) fits an i64")]
        let whole = self.number(value.round() as i64);
        let currency = currency.unwrap_or("CAD");
        let sign = match (self, currency) {
            (_, "CAD") => "$",
            (_, "EUR") => "€",
            (_, "GBP") => "£",
            (Self::English, "USD") => "US$",
            (Self::English, "AUD") => "A$",
            (Self::French, "USD") => "$\u{a0}US",
            (Self::French, "AUD") => "$\u{a0}AU",
            (_, other) => other,
        };
        match self {
            Self::English if sign == currency => format!("{sign}\u{a0}{whole}"),
            Self::English => format!("{sign}{whole}"),
            Self::French => format!("{whole}\u{a0}{sign}"),
        }
    }

    /// A share of a hundred, as it is written.
    pub(crate) fn percent(self, value: f64) -> String {
        match self {
            Self::English => format!("{value}%"),
            Self::French => format!("{}\u{a0}%", value.to_string().replace('.', ",")),
        }
    }

    pub(crate) fn km(self, value: i64) -> String {
        format!("{}\u{a0}km", self.number(value))
    }
}

/// A label; its key where the dictionary has none.
pub(crate) fn word(language: Language, key: &str) -> &'static str {
    let at = usize::from(language == Language::French);
    WORDS.get(key).map_or("?", |words| words[at].as_str())
}

#[cfg(test)]
mod tests {
    use super::{Language, WORDS, word};

    /// Every key between `before` and a quotation mark.
    fn keys<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_label_of_every_page_is_in_the_dictionary() {
        let pages = [
            include_str!("../../pages/alert.html"),
            include_str!("../../pages/base.html"),
            include_str!("../../pages/card.html"),
            include_str!("../../pages/dashboard.html"),
            include_str!("../../pages/problem.html"),
            include_str!("../../pages/search.html"),
            include_str!("../../pages/sql.html"),
            include_str!("../../pages/vehicle.html"),
            include_str!("alert.rs"),
            include_str!("card.rs"),
            include_str!("dashboard.rs"),
            include_str!("results.rs"),
            include_str!("sql.rs"),
            include_str!("vehicle.rs"),
        ];
        let mut used = 0;
        for key in pages.iter().flat_map(|page| keys(page, ".t(\"").chain(keys(page, "word(language, \""))) {
            assert!(WORDS.contains_key(key), "{key} is not in words.json");
            used += 1;
        }
        assert!(used > 60, "{used}");
        for (key, [english, french]) in WORDS.iter() {
            assert!(!english.is_empty() && !french.is_empty(), "{key}");
        }
    }

    #[test]
    fn numbers_are_written_as_each_language_writes_them() {
        let (english, french) = (Language::English, Language::French);
        assert_eq!((english.number(1_234_567), french.number(-12_345)), ("1,234,567".into(), "−12\u{202f}345".into()));
        let amounts = [
            (Some("CAD"), "$21,500", "21\u{202f}500\u{a0}$"),
            (None, "$21,500", "21\u{202f}500\u{a0}$"),
            (Some("USD"), "US$21,500", "21\u{202f}500\u{a0}$\u{a0}US"),
            (Some("AUD"), "A$21,500", "21\u{202f}500\u{a0}$\u{a0}AU"),
            (Some("EUR"), "€21,500", "21\u{202f}500\u{a0}€"),
            (Some("JPY"), "JPY\u{a0}21,500", "21\u{202f}500\u{a0}JPY"),
        ];
        for (currency, in_english, in_french) in amounts {
            assert_eq!(
                (english.money(21_500.4, currency).as_str(), french.money(21_500.4, currency).as_str()),
                (in_english, in_french)
            );
        }
        assert_eq!(english.money(5.0, Some("GBP")), "£5");
        assert_eq!((english.percent(7.99), french.percent(7.99)), ("7.99%".to_owned(), "7,99\u{a0}%".to_owned()));
        assert_eq!(Language::preferred("de-DE, fr-CA;q=0.9, en;q=0.8"), french);
        assert_eq!((Language::preferred("*"), word(french, "search")), (english, "Chercher"));
    }
}
