//! Where the tokens are that fields of a rule read.

use std::sync::Arc;

use crate::policy::field::Field;
use crate::policy::jwt::TokenPlace;

/// Where the tokens are that these fields read.
#[must_use]
pub fn token_places<'a>(fields: impl Iterator<Item = &'a Arc<Field>>) -> Box<[TokenPlace]> {
    let mut places: Vec<TokenPlace> = Vec::new();
    for place in fields.filter_map(|field| field.token_place()) {
        if !places.contains(place) {
            places.push(place.clone());
        }
    }
    places.into()
}
