#!/usr/bin/env bash
# Runs inside the machine of dev/try-systemd, as root, with systemd as PID 1. Each line that begins with @@ is shown outside.
set -uo pipefail
# shellcheck source=/dev/null
. /mnt/env

say() { printf '@@ %s\n' "$*"; }
FAILED=
fail() {
    say "NOT SO: $*"
    FAILED=1
    journalctl -u sluice -u sluice-archive -n 30 --no-pager -o cat | sed 's/^/@@   /'
}
# is WHAT WANTED FOUND
is() { if [ "$2" = "$3" ]; then say "$1: $3"; else fail "$1: $3 instead of $2"; fi; }
# until_so SECONDS COMMAND...
until_so() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.5
    done
}
property() { systemctl show -p "$1" --value "$2"; }
is_property() { [ "$(property "$1" "$2")" = "$3" ]; }
drop_in() {
    mkdir -p "/etc/systemd/system/$1.d"
    cat >"/etc/systemd/system/$1.d/$2.conf"
    systemctl daemon-reload
}
objects() { find /var/lib/sluice/archive -type f ! -path '*/_sluice/*' 2>/dev/null | wc -l; }
in_state() { sluice status --config /etc/sluice/worker.yaml 2>/dev/null | grep -q "$1"; }

say "PID 1 is $(cat /proc/1/comm), $(systemctl --version | head -n 1), Linux $(uname -r)"
# Kafka says that it is on 127.0.0.1.
port=${KAFKA##*:}
cat >/etc/systemd/system/kafka.socket <<UNIT
[Socket]
ListenStream=127.0.0.1:$port
UNIT
cat >/etc/systemd/system/kafka.service <<UNIT
[Service]
ExecStart=/lib/systemd/systemd-socket-proxyd 10.0.2.2:$port
UNIT
systemctl daemon-reload
systemctl start kafka.socket

say "--- installed"
dpkg -i /mnt/sluice.deb || fail "dpkg -i"
is "not started by itself" inactive "$(systemctl is-active sluice)"
sed -i "s/127.0.0.1:9092/$KAFKA/" /etc/sluice/worker.yaml
sed 's/max_interval: 30m/max_interval: 10s/' /usr/share/doc/sluice/examples/connectors/app-logs.yaml >/etc/sluice/connectors/app-logs.yaml
say "exposure: $(systemd-analyze security sluice.service 2>/dev/null | tail -n 1 | tr -d '→')"

say "--- the timer, twice"
drop_in sluice-archive.timer often <<<$'[Timer]\nOnCalendar=\nOnCalendar=*:*:0/30\nRandomizedDelaySec=0\nAccuracySec=1s'
systemctl start sluice-archive.timer
runs() { journalctl -u sluice-archive --no-pager -o cat | grep -c '^Finished\|Finished sluice-archive'; }
twice() { [ "$(runs)" -ge 2 ]; }
until_so 240 twice || fail "the timer did not run twice"
systemctl stop sluice-archive.timer
until_so 120 is_property ActiveState sluice-archive.service inactive || fail "the oneshot goes on"
is "result of the oneshot" success "$(property Result sluice-archive.service)"
say "$(runs) runs, $(objects) objects"

say "--- started, ready, a credential"
printf 'not-used' >/etc/sluice/secrets/kafka-password
drop_in sluice.service try <<'UNIT'
[Service]
WatchdogSec=15s
LoadCredential=kafka-password:/etc/sluice/secrets/kafka-password
UNIT
systemctl start sluice || fail "systemctl start"
is "active" active "$(systemctl is-active sluice)"
is "type" notify "$(property Type sluice)"
say "what it says of itself: $(property StatusText sluice)"
pid=$(property MainPID sluice)
is "user" sluice "$(ps -o user= -p "$pid")"
is "the credential is the user's to read" not-used "$(setpriv --reuid sluice --regid sluice --clear-groups cat "/run/credentials/sluice.service/kafka-password" 2>/dev/null || cat /run/credentials/sluice.service/kafka-password)"
before=$(objects)
more() { [ "$(objects)" -gt "$before" ]; }
until_so 120 more || fail "nothing is archived"
say "$(objects) objects"

say "--- fed watchdog: longer than WatchdogSec"
sleep 40
is "restarts" 0 "$(property NRestarts sluice)"

say "--- reload"
sed 's/max_interval: 10s/max_interval: 20s/; s|/archive|/second|' /etc/sluice/connectors/app-logs.yaml >/etc/sluice/connectors/second.yaml
systemctl reload sluice || fail "systemctl reload"
until_so 60 in_state second || fail "the second connector is not there after a reload"
is "active" active "$(systemctl is-active sluice)"
is "the same process" "$pid" "$(property MainPID sluice)"
printf 'topics: [\n' >/etc/sluice/connectors/broken.yaml
systemctl reload sluice
sleep 5
is "active after a reload of a broken file" active "$(systemctl is-active sluice)"
rm /etc/sluice/connectors/broken.yaml
systemctl reload sluice

say "--- a worker that hangs"
kill -STOP "$pid"
restarted() { [ "$(property NRestarts sluice)" -ge "$1" ] && [ "$(systemctl is-active sluice)" = active ]; }
until_so 120 restarted 1 || fail "the watchdog did not restart it"
journalctl -u sluice --no-pager -o cat | grep -i -m 1 'watchdog timeout' | sed 's/^/@@ /'

say "--- kill -9"
kill -9 "$(property MainPID sluice)"
until_so 120 restarted 2 || fail "not started again after kill -9"
is "restarts" 2 "$(property NRestarts sluice)"

say "--- an upgrade (the same package once more) restarts it"
pid=$(property MainPID sluice)
dpkg -i /mnt/sluice.deb >/dev/null || fail "dpkg -i again"
other() { [ "$(property MainPID sluice)" != "$pid" ] && [ "$(systemctl is-active sluice)" = active ]; }
until_so 120 other || fail "not restarted by the upgrade"

say "--- each stops the other"
systemctl start sluice-archive
is "sluice after sluice-archive" inactive "$(systemctl is-active sluice)"
is "its result" success "$(property Result sluice)"

say "--- wrong settings"
printf 'nonsense: 1\n' >>/etc/sluice/worker.yaml
systemctl start sluice 2>/dev/null && fail "it started with wrong settings"
until_so 120 is_property ActiveState sluice failed || fail "it goes on trying with wrong settings"
is "starts that failed before it stays down" 5 "$(property NRestarts sluice)"
journalctl -u sluice --no-pager -o cat | grep -m 1 nonsense | sed 's/^/@@ /'
sed -i '$d' /etc/sluice/worker.yaml
systemctl reset-failed sluice

say "--- started once more, stopped, proven"
systemctl start sluice || fail "systemctl start"
sleep 15
began=$SECONDS
systemctl stop sluice
say "stopped within $((SECONDS - began)) s"
is "result" success "$(property Result sluice)"
for connector in app-logs second; do
    verdict=$(setpriv --reuid sluice --regid sluice --clear-groups sluice verify "$connector" --config /etc/sluice/worker.yaml --connectors /etc/sluice/connectors 2>&1)
    code=$?
    say "$connector: $(tail -n 1 <<<"$verdict")"
    is "sluice verify $connector" 0 "$code"
done

say "--- removed"
dpkg -r sluice >/dev/null || fail "dpkg -r"
is "program" gone "$(test -e /usr/bin/sluice && echo there || echo gone)"
dpkg -P sluice >/dev/null || fail "dpkg -P"
rm -rf /etc/systemd/system/sluice.service.d /etc/systemd/system/sluice-archive.timer.d
is "left" "/var/lib/sluice /var/lib/sluice/archive/_sluice /var/lib/sluice/second/_sluice" \
    "$(find / -xdev -iname '*sluice*' ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/proc/*' 2>/dev/null | sort | xargs)"
[ -n "$FAILED" ] || say "all as it should be"
