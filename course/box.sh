#!/bin/bash
# The box: box.sh ROOT USER COMMAND...
#
# Runs as root of fresh namespaces (mount, process, network, IPC, host name) that `unshare` made. It
# puts together a file system in the empty folder ROOT that holds nothing but what stands in $BRING
# (lines "source<tab>target", read-only) and small folders in memory, makes it the root, and runs the
# command as user USER ("" where the namespace has one user only) without any capability.
set -euo pipefail
root=$1 user=$2
shift 2

# Files that a submission writes live in memory and count in no other limit.
scratch=64m

mount -t tmpfs -o size=4m,mode=0755 box "$root"
cd "$root"
while IFS=$'\t' read -r source target; do
  if [ -d "$source" ]; then
    mkdir -p ".$target"
  else
    mkdir -p ".$(dirname "$target")"
    touch ".$target"
  fi
  # A user's namespace may bind a folder only together with what is mounted below it.
  mount --rbind "$source" ".$target"
  mount -o remount,bind,ro ".$target"
done <<< "$BRING"
unset BRING
# On most systems these are links into /usr.
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ]; then
    cp -P "/$name" "./$name"
  elif [ -d "/$name" ]; then
    mkdir "$name"
    mount --rbind "/$name" "./$name"
    mount -o remount,bind,ro "./$name"
  fi
done
mkdir -p dev proc tmp old etc
for name in null zero full random urandom; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/shm
mount -t tmpfs -o size=$scratch,mode=1777,nosuid,nodev box dev/shm
mount -t tmpfs -o size=$scratch,mode=1777,nosuid,nodev box tmp
mount -t proc -o nosuid,nodev,noexec proc proc
echo "student:x:${user:-0}:${user:-0}::/tmp:/bin/false" > etc/passwd
pivot_root . old
umount -l /old
rmdir /old
mount -o remount,bind,ro /
cd /tmp

# A second namespace of users, in which nobody may make a third: a user's namespace hands out
# capabilities, and with them more of the kernel than a submission needs.
last='echo 0 > /proc/sys/user/max_user_namespaces
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"'
drop=()
if [ -n "$user" ]; then
  drop=(setpriv "--reuid=$user" "--regid=$user" --clear-groups --)
fi
exec "${drop[@]}" unshare --user --map-root-user -- bash -c "$last" bash "$@"
