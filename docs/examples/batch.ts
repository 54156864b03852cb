// Continues prompts of different lengths together: no padding, and each gets the tokens that it would get alone.
import { AutoModelForCausalLM } from '@q/transformers';

await using model = await AutoModelForCausalLM.fromPretrained('@q/nano', { loadIn8bit: true });
const prompts = [
  'const x =',
  'import { readFile } from',
  '/** Returns the largest of the values. */\nexport function max(',
];

const { texts, newTokens, finishReasons, stats } = await model.generate({
  prompts,
  maxNewTokens: 16,
  doSample: true,
  temperature: 0.8,
  topP: 0.95,
  seed: 7,
});
prompts.forEach((prompt, i) => console.log(JSON.stringify(prompt + texts[i]), newTokens[i].length, finishReasons[i]));
console.log(`${stats.newTokens} tokens, ${stats.peakBytes} bytes at most`);
