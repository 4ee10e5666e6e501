//! The requests that conditions tell apart, to find out whether some request meets certain ones.

use super::{Condition, RequestMatch};

/// The most requests that are tried. Beyond it, the answer is yes.
const MAX_TRIED: usize = 4096;

/// A request, as far as conditions see it: a value for each part that they name. `None` stands for
/// a value that none of them names.
#[derive(Debug)]
pub struct SampleRequest<'a>(Vec<(Condition<'a>, Option<&'a str>)>);

impl SampleRequest<'_> {
    /// Whether it meets these conditions.
    #[must_use]
    pub fn meets(&self, conditions: &RequestMatch) -> bool {
        conditions.conditions().all(|(condition, wanted)| {
            let value = self.0.iter().find(|(part, _)| *part == condition);
            value.and_then(|(_, value)| *value).is_some_and(|value| condition.has(wanted, value))
        })
    }
}

/// Whether some request is wanted, of all that these conditions tell apart. In doubt, one is.
pub fn any_request<'a>(
    all: impl Iterator<Item = &'a RequestMatch>,
    wanted: impl Fn(&SampleRequest<'_>) -> bool,
) -> bool {
    let mut parts: Vec<(Condition<'a>, Vec<Option<&'a str>>)> = Vec::new();
    for (condition, values) in all.flat_map(RequestMatch::conditions) {
        let known = parts.iter().position(|(part, _)| *part == condition);
        let at = known.unwrap_or_else(|| {
            parts.push((condition, vec![None]));
            parts.len() - 1
        });
        parts[at].1.extend(values.iter().map(|value| Some(&**value)));
    }
    for (_, values) in &mut parts {
        values.sort_unstable();
        values.dedup();
    }
    let count = parts.iter().try_fold(1_usize, |product, (_, values)| {
        product.checked_mul(values.len()).filter(|product| *product <= MAX_TRIED)
    });
    let Some(count) = count else { return true };
    (0..count).any(|mut number| {
        let pick = |(part, values): &(Condition<'a>, Vec<Option<&'a str>>)| {
            let value = values[number % values.len()];
            number /= values.len();
            (*part, value)
        };
        wanted(&SampleRequest(parts.iter().map(pick).collect()))
    })
}
