//! Hashes as crypt(5) writes them.

use sha_crypt::{Algorithm, Params, PasswordHasher as _, ShaCrypt};
use yescrypt::Yescrypt;

use super::PasswordCrypto;

/// The hash of a password with a salt that is drawn now.
pub(super) fn hash(password: &[u8], crypto: PasswordCrypto) -> Result<String, String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| format!("no random numbers: {error}"))?;
    let failed = |error: &dyn std::fmt::Display| format!("the password cannot be hashed: {error}");
    let sha = |algorithm| {
        let params = Params::new(ROUNDS).map_err(|error| failed(&error))?;
        // 12 bytes are 16 characters, as many as count.
        let (salt, _) = salt.split_at(12);
        let hash = ShaCrypt::new(algorithm, params).hash_password_with_salt(password, salt);
        let hash = hash.map_err(|error| failed(&error))?;
        // These rounds are those of a hash that does not say how many.
        Ok(hash.as_str().replacen("rounds=5000$", "", 1))
    };
    match crypto {
        PasswordCrypto::Sha256 => sha(Algorithm::Sha256Crypt),
        PasswordCrypto::Sha512 => sha(Algorithm::Sha512Crypt),
        PasswordCrypto::Yescrypt => {
            let hash = Yescrypt::default().hash_password_with_salt(password, &salt);
            hash.map(|hash| hash.as_str().to_owned()).map_err(|error| failed(&error))
        }
    }
}

const ROUNDS: u32 = 5000;

/// 16 characters that look like no other; more than 90 bits.
pub(super) fn random_password() -> Result<String, String> {
    const CHARACTERS: &[u8] = b"ABCDEFGHIJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789";
    let mut password = String::with_capacity(16);
    while password.len() < 16 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
        // Each character as likely as any other: what is beyond the last whole set is drawn again.
        let whole = 256 / CHARACTERS.len() * CHARACTERS.len();
        let drawn = bytes.iter().map(|&byte| usize::from(byte)).filter(|&byte| byte < whole);
        let drawn = drawn.filter_map(|byte| CHARACTERS.get(byte % CHARACTERS.len()));
        password.extend(drawn.map(|&byte| char::from(byte)).take(16 - password.len()));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// crypt(3), by way of perl, makes the same hash of the same password and salt.
    #[test]
    fn crypt_agrees() {
        for (crypto, prefix) in
            [(PasswordCrypto::Sha256, "$5$"), (PasswordCrypto::Sha512, "$6$"), (PasswordCrypto::Yescrypt, "$y$j9T$")]
        {
            for password in
                ["", "secret", "a much longer password with spaces, and \u{e4}\u{f6}\u{fc} in it: 0123456789"]
            {
                let hash = hash(password.as_bytes(), crypto).unwrap();
                assert!(hash.starts_with(prefix), "{hash}");
                assert!(!hash.contains("rounds"), "{hash}");
                let perl = std::process::Command::new("perl")
                    .args(["-e", "print crypt($ARGV[0], $ARGV[1])", "--", password, &hash])
                    .output();
                let Ok(perl) = perl else {
                    assert!(std::env::var_os("CI").is_none(), "perl is not installed");
                    println!("SKIPPED crypt_agrees: perl is not installed");
                    return;
                };
                assert_eq!(String::from_utf8(perl.stdout).unwrap(), hash, "{password}");
            }
        }
    }

    #[test]
    fn random_passwords_differ() {
        let (one, two) = (random_password().unwrap(), random_password().unwrap());
        assert!(one.len() == 16 && two.len() == 16 && one != two);
    }
}
