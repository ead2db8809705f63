//! When a cron expression falls due: five fields (minute, hour, day of month, month, day of week),
//! in UTC. Of two restricted day fields one has to match, as it has always been with cron
//! (design.md §8.9).

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};

use crate::limits::{CRON_BYTES_MAX, CRON_YEARS_MAX};
use crate::time::Wall;

/// Seconds of a day; leap seconds have no place in Unix time.
const DAY: i64 = 86_400;

/// Days from 0000-03-01, where the year of this calendar begins, to 1970-01-01.
const EPOCH: i64 = 719_468;

/// Days of 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;

/// The first moment after `after` that an expression names; None if it is no expression, or names
/// none in the next [`CRON_YEARS_MAX`] years.
pub(crate) fn next(expression: &str, after: Wall) -> Option<Wall> {
    let fields = expression.split_whitespace().count();
    let known =
        |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "*,-/".contains(c);
    if expression.len() > CRON_BYTES_MAX || fields != 5 || !expression.chars().all(known) {
        return None;
    }
    let start = Moment(after.0.div_euclid(1000));
    let year = start.to_civil().year();
    // The years bound the search: an expression may name a day that never comes.
    let bounded = format!(
        "0 {expression} {year}-{}",
        year.checked_add(CRON_YEARS_MAX)?
    );
    let parser = CronParser::builder();
    let parser = parser.seconds(Seconds::Required).year(Year::Required);
    let cron = parser.build().parse(&bounded).ok()?;
    let found = cron.find_next_occurrence(&start, false).ok()?;
    found.0.checked_mul(1000).map(Wall)
}

/// Unix time in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment(i64);

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        let (year, month, day) = date_of(self.0.div_euclid(DAY));
        let second = u32::try_from(self.0.rem_euclid(DAY)).unwrap_or(0);
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(year, month, day),
            CivilTime::from_parts_unchecked(second / 3600, second / 60 % 60, second % 60),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        // 1970-01-01 was a Thursday.
        let day = (self.0.div_euclid(DAY) + 4).rem_euclid(7);
        Weekday::from_days_from_sunday(u32::try_from(day).unwrap_or(0))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let days = days_to(civil.year(), civil.month(), civil.day());
        let second = civil.hour() * 3600 + civil.minute() * 60 + civil.second();
        Ok(Resolution::Single(Self(days * DAY + i64::from(second))))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(seconds).map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// The date so many days after 1970-01-01, in the calendar of today. The year is taken to begin in
/// March, so that the leap day is its last one.
fn date_of(days: i64) -> (i32, u32, u32) {
    let days = days.saturating_add(EPOCH);
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let small = |number: i64| u32::try_from(number).unwrap_or(1);
    // Where the year has no room in 32 bits no expression matches.
    (
        i32::try_from(year).unwrap_or(i32::MAX),
        small(month),
        small(day),
    )
}

/// How many days after 1970-01-01 a date is: the inverse of [`date_of`].
fn days_to(year: i32, month: u32, day: u32) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * month + 2) / 5 + day - 1;
    era * ERA + year * 365 + year / 4 - year / 100 + day - EPOCH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes after 2026-11-23 02:49:17.593, a Monday.
    fn after(expression: &str) -> String {
        let found = next(expression, Wall(1_795_402_157_593));
        found.map_or_else(String::new, |at| at.to_string().replace(":00.000Z", ""))
    }

    #[test]
    fn the_next_minute_that_matches() {
        for (expression, expected) in [
            ("*/5 * * * *", "2026-11-23T02:50"),
            ("49 * * * *", "2026-11-23T03:49"),
            ("0 9 * * *", "2026-11-23T09:00"),
            ("0 9 * * 1-5", "2026-11-23T09:00"),
            ("0 2 * * 1", "2026-11-30T02:00"),
            ("0 0 * * 0", "2026-11-29T00:00"),
            ("0 0 * * 7", "2026-11-29T00:00"),
            ("30 8 1,15 * *", "2026-12-01T08:30"),
            ("0 0 1 1 *", "2027-01-01T00:00"),
            ("0 0 29 2 *", "2028-02-29T00:00"),
            ("  0   0 31 12 * ", "2026-12-31T00:00"),
        ] {
            assert_eq!(after(expression), expected, "{expression}");
        }
    }

    #[test]
    fn either_of_two_day_fields_will_do() {
        assert_eq!(after("0 0 13 * 5"), "2026-11-27T00:00", "a Friday");
        assert_eq!(after("0 0 24 * 5"), "2026-11-24T00:00", "a 24th");
    }

    #[test]
    fn what_is_no_expression_or_never_comes_has_no_next() {
        let long = format!("{} * * * *", "1,".repeat(200));
        for expression in [
            "",
            "bad",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "*/0 * * * *",
            "@daily",
            "0 0 30 2 *",
            "0 0 31 2,4,6,9,11 *",
            "5-1 * * * *",
            &long,
            "é * * * *",
        ] {
            assert_eq!(after(expression), "", "{expression}");
        }
    }

    #[test]
    fn a_leap_year_may_be_eight_years_off() {
        let at = Wall(days_to(2096, 3, 1) * DAY * 1000);
        let next = next("0 0 29 2 *", at).unwrap();
        assert_eq!(next.to_string(), "2104-02-29T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn dates_and_days_agree(days in -1_000_000..3_000_000_i64) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_to(year, month, day), days);
            prop_assert!(CivilDate::from_ymd_opt(year, month, day).is_some());
        }

        #[test]
        fn no_text_does_any_harm(
            text in "[0-9A-Z*,/ -]{0,40}",
            fields in prop::collection::vec("[0-9LW*,/-]{1,5}", 5),
            at in any::<i64>(),
        ) {
            let _: Option<Wall> = next(&text, Wall(at));
            let _: Option<Wall> = next(&fields.join(" "), Wall(at));
        }

        #[test]
        fn the_next_moment_is_a_whole_minute_and_later(
            minute in 0..60_u32, hour in 0..24_u32, at in 0..4_000_000_000_000_i64,
        ) {
            let found = next(&format!("{minute} {hour} * * *"), Wall(at)).unwrap();
            prop_assert!(found.0 > at && found.0 - at <= DAY * 1000);
            prop_assert_eq!(found.0 / 1000 % DAY, i64::from(hour * 3600 + minute * 60));
            prop_assert_eq!(found.0 % 1000, 0);
        }
    }
}
