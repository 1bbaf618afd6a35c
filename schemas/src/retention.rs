//! How long events are kept: a class per event, and how long each class is.

use std::{fmt, str::FromStr, time::Duration};

use serde::Deserialize;

const DAY: Duration = Duration::from_secs(86_400);

/// How long an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// 30 days.
    Short,
    /// 2 years.
    Medium,
    /// 7 years.
    Long,
}

impl Retention {
    pub const ALL: [Self; 3] = [Self::Short, Self::Medium, Self::Long];

    /// How many days an event of this class is kept.
    #[must_use]
    pub const fn days(self) -> u32 {
        match self {
            Self::Short => 30,
            Self::Medium => 730,
            Self::Long => 2_555,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
        }
    }
}

/// How long events of each class are kept, from when they happened or, where they came later, from when they came: so
/// history that is loaded today is not gone tomorrow. Written `short=30d,medium=2y,long=7y`; a class not named is kept as
/// long as it is by itself, `long=off` keeps a class for ever, and `off` alone keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPolicy([Option<Duration>; 3]);

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self(Retention::ALL.map(|class| Some(DAY * class.days())))
    }
}

impl RetentionPolicy {
    /// Everything is kept for ever.
    pub const OFF: Self = Self([None; 3]);

    /// How long a class is kept; none is for ever.
    #[must_use]
    pub const fn of(&self, class: Retention) -> Option<Duration> {
        self.0[class as usize]
    }
}

/// What is wrong with a policy, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no class and its time, such as short=30d; classes are short, medium and long, units s, m, h, d and y"
)]
pub struct RetentionPolicyError(String);

impl FromStr for RetentionPolicy {
    type Err = RetentionPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let mut policy = Self::default();
        for part in text.split(',') {
            let wrong = || RetentionPolicyError(part.to_owned());
            let (name, time) = part.trim().split_once('=').ok_or_else(wrong)?;
            let class = Retention::ALL.into_iter().find(|class| class.as_str() == name).ok_or_else(wrong)?;
            policy.0[class as usize] = if time == "off" { None } else { Some(duration(time).ok_or_else(wrong)?) };
        }
        Ok(policy)
    }
}

impl fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, class) in Retention::ALL.into_iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match self.of(class) {
                None => write!(f, "{comma}{}=off", class.as_str())?,
                Some(time) if time.as_secs().is_multiple_of(DAY.as_secs()) => {
                    write!(f, "{comma}{}={}d", class.as_str(), time.as_secs() / DAY.as_secs())?;
                }
                Some(time) => write!(f, "{comma}{}={}s", class.as_str(), time.as_secs())?,
            }
        }
        Ok(())
    }
}

/// A whole number and a unit: `90s`, `15m`, `12h`, `30d` or `7y` of 365 days.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY.as_secs(),
        'y' => 365 * DAY.as_secs(),
        _ => return None,
    };
    let number: u32 = text[..text.len() - 1].parse().ok()?;
    Some(Duration::from_secs(seconds * u64::from(number)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Retention, RetentionPolicy};

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let read = |text: &str| {
            let policy: RetentionPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string().parse(), Ok(policy));
            Retention::ALL.map(|class| policy.of(class))
        };
        assert_eq!(read("short=30d,medium=2y,long=7y"), RetentionPolicy::default().0);
        assert_eq!(read("short=90s"), [Some(Duration::from_secs(90)), days(730), days(2_555)]);
        assert_eq!(read("long=off, short=1y"), [days(365), days(730), None]);
        assert_eq!(read("off"), [None; 3]);
        for wrong in
            ["", "short", "short=", "short=d", "short=-1d", "short=1w", "brief=1d", "short=1.5d", "off,short=1d"]
        {
            assert!(wrong.parse::<RetentionPolicy>().is_err(), "{wrong}");
        }
    }
}
