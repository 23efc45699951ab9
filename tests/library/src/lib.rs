//! What a library looks like that is handed a cache: no type parameter, no runtime, one dependency. It is compiled once, and
//! the conformance suite calls it under every runtime.

use std::time::Duration;

use larder::{Cache, Error};

/// How long a rendered page may be shown.
const FRESH: Duration = Duration::from_secs(60);

/// The page of that name: the stored one, or one that is rendered and stored now.
///
/// # Errors
/// The name is no key, or the cache can neither answer nor take the page.
pub async fn page(cache: &Cache, name: &str, render: impl FnOnce() -> String) -> Result<String, Error> {
    let pages = cache.namespace("tt")?;
    if let Some(page) = pages.get(name).await? {
        return Ok(page);
    }
    let page = render();
    pages.set(name, &page).ttl(FRESH).await?;
    Ok(page)
}
