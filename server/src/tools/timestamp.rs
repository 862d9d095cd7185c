//! Moments as people and file names have them, in UTC. The clock is read here and nowhere else in
//! the tools.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a tool stamps what it makes")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A moment to the millisecond, such as `2026-01-31T12:00:00.250Z`; any number has a text.
pub fn readable(time_ms: i64) -> String {
    let (year, month, day) = date(time_ms.div_euclid(86_400_000));
    let (hour, minute, second, millisecond) = clock(time_ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// A moment to the second for file names, such as `20260131T120000Z`.
pub fn for_names(time_ms: i64) -> String {
    let (year, month, day) = date(time_ms.div_euclid(86_400_000));
    let (hour, minute, second, _) = clock(time_ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn clock(time_ms: i64) -> (i64, i64, i64, i64) {
    let of_day = time_ms.rem_euclid(86_400_000);
    (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000)
}

/// The date of a day counted from 1970 on, in the Gregorian calendar. Counted in years that begin
/// in March, so that a leap day is a year's last.
fn date(day: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let from_march_0000 = day + 719_468;
    let era = from_march_0000.div_euclid(DAYS_PER_ERA);
    let of_era = from_march_0000.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(readable(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(readable(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(readable(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(readable(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
        assert_eq!(for_names(4_107_542_400_000), "21000301T000000Z");
        readable(i64::MIN);
        readable(i64::MAX);
    }
}
