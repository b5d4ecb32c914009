// A run in a file of its own: the same view over what the file holds.
import { render } from "preact";
import { RunView } from "./run_view.jsx";
import { inFile } from "./sources.js";

export function showFile(root) {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { run, left_out: leftOut } = data;
  const note = <span class="quiet">a copy of {run.run_id}</span>;
  render(
    <main>
      {leftOut && <p class="notice">{leftOut}</p>}
      <RunView source={inFile(data)} runId={run.run_id} run={run} canAct={false} extra={note} />
    </main>,
    root,
  );
}
