//! `annals tls init`: an authority of one's own, and certificates for a server and its clients, for development.

use super::arguments::{Tls as Options, TlsAction as Action};
use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who everybody with these files is.
const CLIENT_NAME: &str = "client";

/// Does what is asked for.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let Action::Init { out, name } = &options.action;
    let names = if name.is_empty() {
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]
    } else {
        name.clone()
    };
    if let Some(wrong) = names.iter().find(|name| name.is_empty() || name.contains(char::is_whitespace)) {
        return Err(Failure::Usage(format!(
            "--name \"{}\" is no name or address of a server",
            wrong.escape_debug()
        )));
    }
    let host = names[0].clone();
    let made = make(names).map_err(|error| Failure::Usage(format!("the certificates: {error}")))?;
    fs::create_dir_all(out).map_err(|error| Failure::io("create", out, error))?;
    // All of them, or none: certificates of two authorities do not go together.
    if let Some((file, _)) = made.iter().find(|(file, _)| out.join(file).exists()) {
        return Err(Failure::Usage(format!(
            "{} is there already; remove it, or choose another directory with --out DIR",
            out.join(file).display()
        )));
    }
    for (file, pem) in &made {
        let path = out.join(file);
        write(&path, pem).map_err(|error| Failure::io("write", &path, error))?;
    }
    let mut output = Output::open();
    let told = if config.json {
        output.json_line(&json!({ "directory": out.to_string_lossy() }))
    } else {
        let dir = out.display();
        output.write(|out| {
            writeln!(out, "annals serve --tls-cert {dir}/server.pem --tls-key {dir}/server.key")?;
            writeln!(out, "annals stat --server {host}:4777 --ca {dir}/ca.pem")
        })
    };
    output.finish(told)
}

/// Files and what is in them.
fn make(names: Vec<String>) -> Result<[(&'static str, String); 6], rcgen::Error> {
    let mut authority =
        named(&format!("Annals development authority {:08x}", rand::random::<u32>()), Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let leaf = |name: &str, names, usage| {
        let key = KeyPair::generate()?;
        let mut params = named(name, names)?;
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority)?;
        Ok::<_, rcgen::Error>((certificate.pem(), key.serialize_pem()))
    };
    let server_name = names.first().cloned().unwrap_or_default();
    let (server, server_key) = leaf(&server_name, names, ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = leaf(CLIENT_NAME, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok([
        ("ca.pem", authority.pem()),
        ("ca.key", authority.key().serialize_pem()),
        ("server.pem", server),
        ("server.key", server_key),
        ("client.pem", client),
        ("client.key", client_key),
    ])
}

fn named(name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Keys are for their owner alone to read.
fn write(path: &Path, pem: &str) -> io::Result<()> {
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    let mode = if is_key { 0o600 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}
