// Figures over time: calls under way, tokens, cost.
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { dollars, number, seconds } from "./format.js";
import { concurrency } from "./log.js";
import { Usage } from "./usage.jsx";

const HEIGHT = 110;

export function Plots({ log, version }) {
  const underWay = useMemo(() => concurrency(log.calls), [log, log.calls.length]);
  const at = log.figures.map((each) => each[0]);
  const column = (index) => [at, log.figures.map((each) => each[index] ?? 0)];
  const charts = [
    { title: "Calls under way", data: underWay, format: number, colour: "--call", isStepped: true },
    { title: "Tokens in", data: column(2), format: number, colour: "--model" },
    { title: "Tokens out", data: column(3), format: number, colour: "--cell" },
  ];
  if (log.figures.some((each) => each[4] != null)) {
    charts.push({ title: "Cost", data: column(4), format: dollars, colour: "--accent" });
  }
  return (
    <>
      <section class="plots" aria-label="Figures over time">
        {charts.map((chart) => (
          <Plot key={chart.title} {...chart} version={version} />
        ))}
      </section>
      <Usage models={log.ended?.models} />
    </>
  );
}

function Plot({ title, data, format, version, colour, isStepped = false }) {
  const box = useRef(null);
  const value = useRef(null);
  const plot = useRef(null);
  const most = data[1].reduce((highest, each) => Math.max(highest, each), 0);
  useEffect(() => {
    const element = box.current;
    const options = optionsOf(element, { format, colour, isStepped }, (text) => {
      if (value.current) value.current.textContent = text;
    });
    const made = new uPlot(options, data, element);
    plot.current = made;
    const resize = () => made.setSize({ width: element.clientWidth, height: HEIGHT });
    const observer = new ResizeObserver(resize);
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [version]);
  return (
    <figure>
      <figcaption>
        {title} <b>{format(most)}</b> <span ref={value} />
      </figcaption>
      <div ref={box} role="img" aria-label={`${title} over time, at most ${format(most)}`} />
    </figure>
  );
}

/** @returns {uPlot.Options} */
function optionsOf(box, { format, colour, isStepped = false }, showValue) {
  const style = getComputedStyle(box);
  const paint = (name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: paint("--faint"),
    grid: { stroke: paint("--line"), width: 1 },
    ticks: { show: false },
    font: `10px ${paint("--sans")}`,
  };
  const setCursor = ({ cursor, data }) =>
    showValue(
      cursor.idx == null ? "" : `${format(data[1][cursor.idx])} at ${seconds(data[0][cursor.idx])}`,
    );
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "run" }, y: false, points: { size: 5 } },
    scales: { x: { time: false }, y: { range: (_plot, _low, high) => [0, high || 1] } },
    axes: [
      { ...axis, size: 18, space: 60, values: (_plot, all) => all.map(seconds) },
      { ...axis, size: 44, space: 28, values: (_plot, all) => all.map(format) },
    ],
    series: [
      {},
      {
        stroke: paint(colour),
        width: 1.5,
        fill: `color-mix(in srgb, ${paint(colour)} 14%, transparent)`,
        paths: isStepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: false },
      },
    ],
    hooks: { setCursor: [setCursor] },
  };
}
