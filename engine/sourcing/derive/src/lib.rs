//! Derives the mapping between events of an application and the types under which they are stored. See `annals-sourcing`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use std::collections::HashSet;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, FieldsNamed, Ident, LitInt, LitStr, Path, Result, Variant,
    parse_macro_input,
};

/// Implements `DomainEvent` for an enum, each variant of which is an event, or for a struct, which is one.
///
/// Each has its stored name, which never changes: `#[event("MoneyDeposited")]`; where its form has changed since, the version of
/// the form that it has now, and the oldest one that can still be read: `#[event("MoneyDeposited", schema = 3, oldest = 2)]`. On
/// the whole, `#[events(upcasts = path::to::function)]` names the function that makes its upcasts. Attributes of serde on variants and fields hold
/// for the stored form; those on the enum itself and a variant's `rename` do not: the name is the event's.
#[proc_macro_derive(DomainEvent, attributes(event, events, serde))]
pub fn derive_domain_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

struct Stored {
    name: LitStr,
    schema: u32,
    oldest: u32,
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &input.generics,
            "an event has no type parameters: its stored form is one",
        ));
    }
    let name = &input.ident;
    let upcasts = upcasts(&input.attrs)?;
    let arms: Vec<Arm> = match &input.data {
        Data::Enum(data) => data.variants.iter().map(of_variant).collect::<Result<_>>()?,
        Data::Struct(_) => vec![of_struct(input)?],
        Data::Union(_) => return Err(Error::new_spanned(name, "a union is no event")),
    };
    if arms.is_empty() {
        return Err(Error::new_spanned(name, "there is no event in it"));
    }
    let mut seen = HashSet::new();
    for arm in &arms {
        if !seen.insert(arm.stored.name.value()) {
            return Err(Error::new_spanned(&arm.stored.name, "another event has this name"));
        }
    }
    let types = arms.iter().map(|arm| {
        let Stored { name, schema, oldest } = &arm.stored;
        quote!(::annals_sourcing::EventType { name: #name, schema: #schema, oldest: #oldest })
    });
    let of = arms.iter().enumerate().map(|(index, arm)| {
        let pattern = &arm.any;
        quote!(#pattern => &<Self as ::annals_sourcing::DomainEvent>::TYPES[#index])
    });
    let encode = arms.iter().map(|arm| {
        let (pattern, encode) = (&arm.pattern, &arm.encode);
        quote!(#pattern => #encode)
    });
    let decode = arms.iter().map(|arm| {
        let (stored, decode) = (&arm.stored.name, &arm.decode);
        quote!(#stored => ::core::option::Option::Some(#decode))
    });
    Ok(quote! {
        #[automatically_derived]
        impl ::annals_sourcing::DomainEvent for #name {
            const TYPES: &'static [::annals_sourcing::EventType] = &[#(#types),*];

            fn event_type(&self) -> &'static ::annals_sourcing::EventType {
                match self { #(#of),* }
            }

            fn encode<C: ::annals_sourcing::Codec>(
                &self,
                __codec: &C,
            ) -> ::core::result::Result<::std::vec::Vec<u8>, ::annals_sourcing::CodecError> {
                match self { #(#encode),* }
            }

            fn decode<C: ::annals_sourcing::Codec>(
                event_type: &str,
                __data: &[u8],
                __codec: &C,
            ) -> ::core::option::Option<::core::result::Result<Self, ::annals_sourcing::CodecError>> {
                match event_type {
                    #(#decode,)*
                    _ => ::core::option::Option::None,
                }
            }

            #upcasts
        }
    })
}

/// What is written for one event.
struct Arm {
    stored: Stored,
    any: Tokens,
    pattern: Tokens,
    encode: Tokens,
    decode: Tokens,
}

fn of_variant(variant: &Variant) -> Result<Arm> {
    let ident = &variant.ident;
    let stored = stored(&variant.attrs, ident)?;
    let any = quote!(Self::#ident { .. });
    Ok(match &variant.fields {
        Fields::Unit => Arm {
            stored,
            any,
            pattern: quote!(Self::#ident),
            encode: quote!(__codec.encode(&::annals_sourcing::Nothing {})),
            decode: quote! {
                if __data.is_empty() {
                    ::core::result::Result::Ok(Self::#ident)
                } else {
                    __codec.decode::<::annals_sourcing::Nothing>(__data).map(|_| Self::#ident)
                }
            },
        },
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Arm {
            stored,
            any,
            pattern: quote!(Self::#ident(__inner)),
            encode: quote!(__codec.encode(__inner)),
            decode: quote!(__codec.decode(__data).map(Self::#ident)),
        },
        Fields::Unnamed(fields) => {
            return Err(Error::new_spanned(
                fields,
                "name the fields, or put them into a struct: places are no names",
            ));
        }
        Fields::Named(fields) => with_fields(ident, &variant.attrs, stored, fields),
    })
}

/// Its fields go through two structs of their own, one that borrows and one that owns.
fn with_fields(ident: &Ident, attributes: &[Attribute], stored: Stored, fields: &FieldsNamed) -> Arm {
    let names: Vec<_> = fields.named.iter().filter_map(|field| field.ident.as_ref()).collect();
    let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
    let serde: Vec<Vec<&Attribute>> = fields
        .named
        .iter()
        .map(|field| field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")).collect())
        .collect();
    let container: Vec<_> =
        attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).collect();
    let encode = quote! {{
        #[derive(::annals_sourcing::serde::Serialize)]
        #[serde(crate = "::annals_sourcing::serde")]
        #(#container)*
        struct __AnnalsRef<'a> { #(#(#serde)* #names: &'a #types),* }
        __codec.encode(&__AnnalsRef { #(#names),* })
    }};
    let decode = quote! {{
        #[derive(::annals_sourcing::serde::Deserialize)]
        #[serde(crate = "::annals_sourcing::serde")]
        #(#container)*
        struct __AnnalsOwned { #(#(#serde)* #names: #types),* }
        __codec.decode::<__AnnalsOwned>(__data).map(|__AnnalsOwned { #(#names),* }| Self::#ident { #(#names),* })
    }};
    Arm {
        stored,
        any: quote!(Self::#ident { .. }),
        pattern: quote!(Self::#ident { #(#names),* }),
        encode,
        decode,
    }
}

fn of_struct(input: &DeriveInput) -> Result<Arm> {
    Ok(Arm {
        stored: stored(&input.attrs, &input.ident)?,
        any: quote!(_),
        pattern: quote!(_),
        encode: quote!(__codec.encode(self)),
        decode: quote!(__codec.decode(__data)),
    })
}

fn stored(attributes: &[Attribute], ident: &Ident) -> Result<Stored> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
        if found.is_some() {
            return Err(Error::new_spanned(attribute, "an event has one name"));
        }
        found = Some(attribute.parse_args_with(|input: syn::parse::ParseStream<'_>| {
            let name: LitStr = input.parse()?;
            let (mut schema, mut oldest) = (1, 1);
            while !input.is_empty() {
                input.parse::<syn::Token![,]>()?;
                let key: Ident = input.parse()?;
                input.parse::<syn::Token![=]>()?;
                let number: LitInt = input.parse()?;
                match key.to_string().as_str() {
                    "schema" => schema = number.base10_parse()?,
                    "oldest" => oldest = number.base10_parse()?,
                    _ => return Err(Error::new_spanned(key, "it is `schema` or `oldest`")),
                }
            }
            if name.value().is_empty()
                || name.value().chars().any(char::is_control)
                || name.value().len() > 256
            {
                return Err(Error::new_spanned(name, "a name has 1 to 256 bytes and no control characters"));
            }
            if oldest == 0 || oldest > schema {
                return Err(Error::new_spanned(
                    name,
                    "schemas are counted from 1, and the oldest is not the newest's successor",
                ));
            }
            Ok(Stored { name, schema, oldest })
        })?);
    }
    found.ok_or_else(|| {
        let example = format!("say under which name it is stored for ever: #[event(\"{ident}\")]");
        Error::new_spanned(ident, example)
    })
}

fn upcasts(attributes: &[Attribute]) -> Result<Tokens> {
    let mut found = Tokens::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("events")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("upcasts") {
                return Err(meta.error("it is `upcasts = path::to::function`"));
            }
            let path: Path = meta.value()?.parse()?;
            found = quote! {
                fn upcasts() -> ::annals_sourcing::Upcasts { #path() }
            };
            Ok(())
        })?;
    }
    Ok(found)
}
