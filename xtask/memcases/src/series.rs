//! Memory over time, in a bounded number of points.

use std::time::Duration;

use serde_json::{Value, json};

/// Points kept: from here on, two become one.
const CAPACITY: usize = 512;

/// What one point spans at first.
const FIRST_STEP: Duration = Duration::from_millis(2);

/// The highest values of each stretch of time. Its own memory is taken when it is made, and never grows.
#[derive(Debug)]
pub(crate) struct Series {
    points: Vec<Point>,
    step: Duration,
}

/// Bytes at one moment, of the whole process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) heap: u64,
    pub(crate) rss: u64,
    pub(crate) anon: u64,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    /// How many steps came before.
    step: u32,
    highest: Moment,
}

impl Series {
    pub(crate) fn new() -> Self {
        Self {
            points: Vec::with_capacity(CAPACITY),
            step: FIRST_STEP,
        }
    }

    /// Notes what there is so long after the start.
    pub(crate) fn add(&mut self, elapsed: Duration, now: Moment) {
        let mut step = self.step_of(elapsed);
        if let Some(last) = self.points.last_mut()
            && last.step == step
        {
            last.highest = last.highest.max(now);
            return;
        }
        if self.points.len() == CAPACITY {
            self.thin_out();
            step = self.step_of(elapsed);
        }
        self.points.push(Point { step, highest: now });
    }

    /// What was there `before` the start, and the values of all points.
    pub(crate) fn json(&self, before: Moment) -> Value {
        let each = |of: fn(&Moment) -> u64| -> Vec<u64> {
            self.points.iter().map(|point| of(&point.highest)).collect()
        };
        let millis = self.points.iter().map(|point| {
            let at = self.step * point.step;
            u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
        });
        json!({
            "before": { "heap": before.heap, "rss": before.rss, "anon": before.anon },
            "ms": millis.collect::<Vec<_>>(),
            "heap": each(|now| now.heap),
            "rss": each(|now| now.rss),
            "anon": each(|now| now.anon),
        })
    }

    fn step_of(&self, elapsed: Duration) -> u32 {
        u32::try_from(elapsed.as_micros() / self.step.as_micros()).unwrap_or(u32::MAX)
    }

    /// Steps become twice as long.
    fn thin_out(&mut self) {
        self.step *= 2;
        self.points.iter_mut().for_each(|point| point.step /= 2);
        self.points.dedup_by(|later, kept| {
            let same = later.step == kept.step;
            if same {
                kept.highest = kept.highest.max(later.highest);
            }
            same
        });
    }
}

impl Moment {
    fn max(self, other: Self) -> Self {
        Self {
            heap: self.heap.max(other.heap),
            rss: self.rss.max(other.rss),
            anon: self.anon.max(other.anon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(heap: u64) -> Moment {
        Moment {
            heap,
            ..Moment::default()
        }
    }

    #[test]
    fn values_within_one_step_leave_the_highest() {
        let mut series = Series::new();
        for (micros, heap) in [(0, 3), (1000, 7), (1999, 5), (2000, 1)] {
            series.add(Duration::from_micros(micros), moment(heap));
        }
        let json = series.json(moment(2));
        assert_eq!(json["ms"], json!([0, 2]));
        assert_eq!(json["heap"], json!([7, 1]));
        assert_eq!(json["before"]["heap"], json!(2));
    }

    #[test]
    fn a_long_series_stays_small_and_keeps_its_highest_value_and_its_end() {
        let mut series = Series::new();
        for i in 0..10_000 {
            let heap = if i == 4321 { 1_000_000 } else { i };
            series.add(FIRST_STEP * u32::try_from(i).unwrap(), moment(heap));
        }
        assert!(series.points.len() <= CAPACITY && series.points.capacity() == CAPACITY);
        let json = series.json(moment(0));
        let of = |name: &str| -> Vec<u64> {
            let list = json[name].as_array().unwrap().iter();
            list.map(|value| value.as_u64().unwrap()).collect()
        };
        let (millis, heap) = (of("ms"), of("heap"));
        assert!(millis.is_sorted() && (19_900..20_000).contains(millis.last().unwrap()));
        assert_eq!(heap.iter().max(), Some(&1_000_000));
        assert_eq!(heap.last(), Some(&9_999));
    }
}
