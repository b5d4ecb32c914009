// One bundle for three places: <html data-as> says whether this is the page, the app or a file.
import "./style.css";
import { showApp } from "./app.jsx";
import { showFile } from "./file.jsx";
import { showPage } from "./page.jsx";

const show = { page: showPage, app: showApp, file: showFile };
show[document.documentElement.dataset.as](document.getElementById("root"));
