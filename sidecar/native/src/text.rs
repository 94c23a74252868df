//! Text of numbers and times, as the records have it.

use std::io::Write;

/// Milliseconds with microsecond precision, as `int(seconds * 1_000_000 + 0.5) / 1000`.
pub fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1_000_000.0 + 0.5).floor().max(0.0) / 1000.0
}

pub fn put_number(out: &mut Vec<u8>, number: u64) {
    let _ = write!(out, "{number}");
}

/// A number as `orjson` and `json` write it: the shortest text that reads as the same.
pub fn put_float(out: &mut Vec<u8>, number: f64) {
    let _ = write!(out, "{number:?}");
}

/// A time in UTC to the microsecond; `at` in seconds since the epoch.
pub fn put_time(out: &mut Vec<u8>, at: f64) {
    let micros = (at * 1_000_000.0) as u64;
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (year, month, day) = civil((seconds / 86_400) as i64);
    let second = seconds % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z");
}

/// The date of a day since the epoch, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year + era * 400 + i64::from(month <= 2), month, day)
}
