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
# Who grades may keep new folders from others, and the user of the box is another.
umask 022

mount -t tmpfs -o size=4m,mode=0755 box "$root"
cd "$root"
# On most systems these are links into /usr.
for name in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ]; then
    cp -P "/$name" "./$name"
  elif [ -d "/$name" ]; then
    mkdir "$name"
    mount --rbind "/$name" "./$name"
  fi
done
mkdir -p dev/shm proc tmp etc
# Before what is brought, which may lie below them.
for folder in dev/shm tmp; do
  mount -t tmpfs -o size=$scratch,mode=1777,nosuid,nodev box "$folder"
done
while IFS=$'\t' read -r source target; do
  if [ -d "$source" ]; then
    mkdir -p ".$target"
  else
    mkdir -p ".$(dirname "$target")"
    touch ".$target"
  fi
  # A user's namespace may bind a folder only together with what is mounted below it.
  mount --rbind "$source" ".$target"
done <<< "$BRING"
unset BRING
# Whatever was bound, and what came with it. A user's namespace may take no other option away, and
# `mount` keeps them. The list writes a space as \040, and `printf` reads \0040.
mapfile -t mounts < /proc/self/mountinfo
for line in "${mounts[@]}"; do
  read -r _ _ _ _ place _ <<< "$line"
  place=$(printf '%b' "${place//\\/\\0}")
  case $place in
    "$root" | "$root/tmp" | "$root/dev/shm") ;;
    "$root"/*) mount -o remount,bind,ro "$place" ;;
  esac
done
for name in null zero full random urandom; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mount -t proc -o nosuid,nodev,noexec proc proc
echo "student:x:${user:-0}:${user:-0}::/tmp:/bin/false" > etc/passwd
# The new root over the old one, which is then on top and goes: no name inside is taken for it.
pivot_root . .
umount -l .
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
