//! Guards failures that would be swallowed: what a panic says reaches the test that asked for quiet.

use testkit::{catch, quietly};

#[test]
fn a_panic_says_the_same_after_it_was_caught() {
    assert_eq!(catch(|| 7), Ok(7));
    let said = quietly(|| [catch(|| panic!("plain")), catch(|| panic!("number {}", 7))]);
    assert_eq!(
        said,
        [Err::<(), _>("plain".to_owned()), Err("number 7".to_owned())]
    );
    let said = quietly(|| catch(|| quietly(|| panic!("from {}", "inside"))));
    assert_eq!(said, Err::<(), _>("from inside".to_owned()));
}
