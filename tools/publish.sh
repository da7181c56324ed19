#!/usr/bin/env bash
# Publishes _build/html on the branch gh-pages of a repository, as one commit without history, with
# the PDF and the archive that its front page offers, and checks that what stands there is what was
# built. The notebooks install a tag: it must be there, with this package. bash tools/publish.sh REPOSITORY
set -euo pipefail
there=$1
root=$(cd "$(dirname "$0")/.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

cp -R "$root/_build/html/." "$site"
cp "$root/LICENSE-book" "$site/LICENSE"
# What the build keeps for itself: its own state, and the notebooks whose boxes only the book draws.
# The source of any other page is what its button downloads.
rm -f "$site/.buildinfo" "$site/objects.inv.bak"
find "$site" -path "$site/_sources/*.ipynb" -delete
touch "$site/.nojekyll"
for made in "$root/_build/fldp.pdf" "$root"/_build/fldp-book-*.zip; do
  if [ ! -e "$made" ]; then
    echo "$made is not there: make pdf offline" >&2
    exit 1
  fi
  cp "$made" "$site"
done

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/fldp/__init__.py")
tag="v$version"
if ! git -C "$root" fetch --quiet --no-tags "$there" "refs/tags/$tag"; then
  echo "the notebooks install $tag, and there is no such tag: push it first" >&2
  exit 1
fi
if ! git -C "$root" diff --quiet FETCH_HEAD HEAD -- fldp pyproject.toml; then
  echo "the notebooks install $tag, and this is another package: cut a release of it first" >&2
  exit 1
fi

commit=$(git -C "$root" rev-parse --short HEAD)

git -C "$site" init --quiet --initial-branch gh-pages
git -C "$site" add --all
git -C "$site" -c user.name=fldp -c user.email=fldp@users.noreply.github.com \
  commit --quiet --message "The book of $commit"
git -C "$site" push --quiet --force "$there" gh-pages

git clone --quiet --depth 1 --branch gh-pages "$there" "$site/published"
"$root/.venv/bin/python" "$root/tools/twins.py" --check "$site/published/notebooks"
