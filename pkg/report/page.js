// Shows the value under the pointer. Without scripts the page shows the last value of each curve.
for (const plot of document.querySelectorAll(".plot")) {
  const points = JSON.parse(plot.dataset.points);
  const area = plot.querySelector(".area");
  const cursor = plot.querySelector(".cursor");
  const output = plot.parentElement.querySelector("output");
  const last = output.textContent;
  const show = (event) => {
    const box = area.getBoundingClientRect();
    const x = 1000 * (event.clientX - box.left) / box.width;
    let best = points[0];
    for (const p of points) {
      if (Math.abs(p[1] - x) < Math.abs(best[1] - x)) best = p;
    }
    cursor.hidden = false;
    cursor.style.left = best[1] / 10 + "%";
    cursor.firstElementChild.style.top = best[2] / 10 + "%";
    output.textContent = "step " + best[0] + ": " + best[3];
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => {
    cursor.hidden = true;
    output.textContent = last;
  });
}
