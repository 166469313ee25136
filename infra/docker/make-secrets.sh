#!/bin/sh
# Write the secrets that nobody has to choose, once, into the folder `secrets` beside this file (or the one named).
# What is there already stays. The files are readable and the folder is not: a container's user gets single files.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 0700 "$folder"

write() {
    [ -e "$folder/$1" ] || printf '%s' "$2" > "$folder/$1"
    chmod 0444 "$folder/$1"
}

random() {
    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'
}

write postgres-password "$(random)"
write ledger-password "$(random)"
write database-url "postgresql://ledger:$(cat "$folder/ledger-password")@postgres:5432/ledger"
write prefect-password "$(random)"
write prefect-auth "operator:$(random)"
# a Fernet key: 32 bytes, URL-safe base64. Without it Prefect keeps the key beside what it encrypts.
write prefect-encryption-key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n')"

missing=
for name in signer-url l1-rpc l2-node-rpc op-succinct-server-url alert-webhook; do
    [ -s "$folder/$name" ] && chmod 0444 "$folder/$name" || missing="$missing $name"
done
[ -z "$missing" ] || echo "Now write these into $folder yourself, and run this again:$missing"
