import fc from 'fast-check';
import { it } from 'vitest';
import { budgetsOf, shares, trees } from './testing/trees.js';
import { planPlacement, computeModuleSizes, readTree } from './index.js';
it('explore', () => {
  const stats: Record<string, number> = {};
  const add = (k: string) => { stats[k] = (stats[k] ?? 0) + 1; };
  let shown = 0;
  for (const strategy of ['sequential', 'balanced', 'balanced_low_0'] as const) {
    for (const [tree, share, which, more] of fc.sample(fc.tuple(trees, shares, fc.nat(), fc.integer({ min: 0, max: 1000 }).map((v) => v / 1000)), { numRuns: 12000, seed: 7 })) {
      const size = computeModuleSizes(tree, { wiring: 'q' })['']!;
      const budgets = budgetsOf(share, size);
      if (budgets.length === 0) continue;
      const bigger = budgets.map(([d, b], i) => [d, i === which % budgets.length ? b + Math.floor(more * size) : b] as [number | string, number]);
      const a = planPlacement({ tree, deviceMap: strategy, maxMemory: budgets });
      const b = planPlacement({ tree, deviceMap: strategy, maxMemory: bigger });
      const off = (p: typeof a, d: string[]) => p.usage.filter((u) => d.includes(String(u.device))).reduce((s, u) => s + u.weights, 0);
      add(strategy);
      const tree2 = readTree(tree); const names = [...tree2.parameters.keys(), ...tree2.buffers.keys()];
      const prefix = (p: typeof a) => { let i = 0; while (i < names.length && !['cpu', 'disk'].includes(String(p.deviceOf(names[i]!)))) i++; return i; };
      if (prefix(b) < prefix(a)) add(`${strategy} prefix ${tree.tied!.length}`);
      const tied = (tree.tied?.length ?? 0) > 0 ? 'tied' : 'free';
      const grew = bigger[which % budgets.length]![0] === 'cpu' ? 'cpu' : budgets[which % budgets.length]![1] === 0 ? 'gpu0' : 'gpu';
      if (off(b, ['cpu', 'disk']) > off(a, ['cpu', 'disk'])) { add(`${strategy} ${tied} ${grew} more offload`);
        if (strategy === 'sequential' && shown++ < 0) { console.log(JSON.stringify(tree), JSON.stringify(budgets), JSON.stringify(bigger)); console.log(a.explain().table); console.log(b.explain().table); } }
      else if (off(b, ['disk']) > off(a, ['disk'])) add(`${strategy} ${tied} ${grew} more disk`);
    }
  }
  console.log(stats);
  if (stats) return; const t = fc.sample(trees, { numRuns: 10 });
  const h: Record<string, number> = {};
  for (const x of t) { const k = 'modules ' + Math.min(200, 10 * Math.floor(x.modules.length / 10)) + (x.tied!.length ? ' tied' : ''); h[k] = (h[k] ?? 0) + 1; }
  console.log(h); console.log(JSON.stringify(t[5])); console.log(fc.sample(shares, 10).map((x) => JSON.stringify(x)));
});
