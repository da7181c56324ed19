// What scrolls sideways can be reached by the keyboard, and only as long as it scrolls.
(() => {
  const WIDE = ".fldp-wide, .bd-article table, .bd-article pre, .pst-scrollable-table-container";
  const reach = () => {
    for (const box of document.querySelectorAll(WIDE)) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("DOMContentLoaded", reach);
  addEventListener("load", reach);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(reach, 150); });
  document.addEventListener("toggle", reach, true);
})();
