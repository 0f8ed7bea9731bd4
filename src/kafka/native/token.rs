//! Tokens of a client whose mechanism is OAUTHBEARER: given from outside, whether or not it is polled.

use std::ffi::{CString, c_char};

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::kafka::identity::Token;

/// Gives a client its token, which it shows at each connection from now on, and where a broker asks again.
///
/// # Errors
///
/// Why librdkafka does not take it, without the token.
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_nul| "it has a NUL character".to_owned());
    let (value, principal) = (text(&token.value)?, text(&token.principal)?);
    let pairs = token.extensions.iter().flat_map(|(name, value)| [name, value]);
    let pairs = pairs.map(|part| text(part)).collect::<Result<Vec<_>, _>>()?;
    let mut parts: Vec<*const c_char> = pairs.iter().map(|part| part.as_ptr()).collect();
    let mut said: [c_char; 512] = [0; 512];
    // SAFETY: the client outlives the call, every text ends with a zero byte and is copied, and what is said ends with one
    // within its room.
    unsafe {
        let code = c::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expires,
            principal.as_ptr(),
            parts.as_mut_ptr(),
            parts.len(),
            said.as_mut_ptr(),
            said.len(),
        );
        if Code::from(code) == Code::NoError {
            return Ok(());
        }
    }
    // librdkafka's own words quote what it does not take.
    Err("it has expired, or it or an extension has characters that none may have".to_owned())
}

/// Tells a client that there is no token now, and why: its connections say so until it is given one.
pub fn no_token<C: ClientContext>(client: &Client<C>, why: &str) {
    let why = CString::new(why.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the client outlives the call, and the text is copied. What it answers is that another mechanism is used,
    // which has no tokens.
    unsafe {
        c::rd_kafka_oauthbearer_set_token_failure(client.native_ptr(), why.as_ptr());
    }
}
