// Where the data come from: what a report holds, or a server that is asked again and again.

const source = (() => {
  const embedded = byId("data");
  if (embedded) {
    const { state, series } = JSON.parse(embedded.textContent);
    return { live: false, state: async () => state, series: async (run) => series[run] };
  }
  const get = async (path) => {
    const answer = await fetch(path, { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok) throw Object.assign(new Error(`the server answers ${answer.status}`), { status: answer.status });
    return answer.json();
  };
  return {
    live: true,
    state: () => get("api/state"),
    // The points of a run from one step to another, for a chart of so many pixels.
    series: (run, [from, to], buckets) => {
      const range = (from === null ? "" : `&from=${from}`) + (to === null ? "" : `&to=${to}`);
      return get(`api/series?run=${run}&buckets=${buckets}${range}`);
    },
  };
})();
