#!/bin/sh
# Installs Debian's PostgreSQL server where there is none: some tests start one of their own, in a temporary folder.
# No cluster is made and no service is started. Where it cannot install, it says so, and those tests skip themselves.
set -eu

find_initdb() {
    command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null
}

cannot() {
    echo "no PostgreSQL server here, the tests that need one will skip: $1" >&2
    exit 0
}

find_initdb >/dev/null && exit 0
command -v apt-get >/dev/null || cannot "install your system's package of it"
[ "$(id -u)" -eq 0 ] || cannot "sudo $0"

mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main.conf
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; } >/dev/null || cannot "apt-get failed"
find_initdb >/dev/null || cannot "the package brought no initdb"
