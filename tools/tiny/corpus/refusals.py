"""Questions beyond a very small model: it says that it does not know."""

from __future__ import annotations

import random

from tiny.corpus.example import Turn, says
from tiny.corpus.facts import CAPITAL, COLOUR, OPPOSITE
from tiny.corpus.grammar import Language, Split, Templates
from tiny.corpus.paraphrases import more
from tiny.corpus.words import TO_CHINESE, TO_ENGLISH

ANSWER = {
    "en": "I am a very small model and don't know that.",
    "zh": "我是一个很小的模型，不知道这个。",
}
# Subjects for evaluation differ from those of training, as a model has to refuse what it has never read of.
SUBJECTS = {
    "en": Templates(
        (
            "the French Revolution|the Roman Empire|Napoleon|Albert Einstein|William Shakespeare|black holes|string theory|"
            "the theory of relativity|photosynthesis|the stock market|inflation|the tax law|the constitution|climate change|"
            "nuclear fusion|vaccines|cancer|diabetes|the human brain|DNA|evolution|dinosaurs|the Middle Ages|World War II|"
            "the Cold War|Leonardo da Vinci|Mozart|Beethoven|the Beatles|the Olympic Games|the World Cup|chess openings|"
            "blockchain|Bitcoin|cryptography|Kubernetes|Linux kernels|compilers|the Rust language|Java|SQL joins|"
            "linear algebra|calculus|the Riemann hypothesis|prime numbers|statistics|philosophy|Kant|Buddhism|psychology|"
            "marketing|mortgages|insurance|divorce law|wine|perfume|fashion|Hollywood|opera|jazz|volcanoes|earthquakes|"
            "the Amazon river|the Great Wall|the pyramids|Mars missions|satellites|rockets|submarines|steel|oil prices|"
            "the Prime Minister|the president|my neighbour|my boss|your grandmother|Harry Potter|Star Wars|Hamlet|Homer|"
            "Thomas Edison|Marie Curie|Isaac Newton|Galileo|Cleopatra|Gandhi|the Vikings|the Aztecs|the Silk Road"
        ).split("|"),
        (
            "the Ottoman Empire|Charles Darwin|Nikola Tesla|gene therapy|dark matter|the Renaissance|Picasso|hedge funds|"
            "plate tectonics|Socrates|the Crusades|machine guns|Taylor Swift|the Higgs boson|antibiotics|Queen Victoria|"
            "the Federal Reserve|Michelangelo|contract law|the Berlin Wall"
        ).split("|"),
    ),
    "zh": Templates(
        (
            "法国大革命|罗马帝国|拿破仑|爱因斯坦|莎士比亚|黑洞|弦理论|相对论|光合作用|股票市场|通货膨胀|税法|宪法|气候变化|核聚变|疫苗|"
            "癌症|糖尿病|大脑|基因|进化论|恐龙|中世纪|第二次世界大战|冷战|达芬奇|莫扎特|贝多芬|奥运会|世界杯|区块链|比特币|密码学|"
            "编译器|线性代数|微积分|黎曼猜想|哲学|康德|佛教|心理学|市场营销|房贷|保险|葡萄酒|时尚|歌剧|火山|地震|长城|金字塔|卫星|火箭|"
            "石油价格|总理|总统|我的邻居|红楼梦|三国演义|西游记|李白|孔子|秦始皇|唐朝|宋朝|丝绸之路|牛顿|居里夫人|甘地"
        ).split("|"),
        "奥斯曼帝国|达尔文|特斯拉|暗物质|文艺复兴|毕加索|对冲基金|苏格拉底|十字军|抗生素|米开朗基罗|合同法|柏林墙|杜甫|明朝|水浒传".split(
            "|"
        ),
    ),
}
ASK = {
    "en": Templates(
        [
            *more("KEY: refusals.ASK.en"),
            "[Explain|Describe] $subject[ to me|].",
            "Tell me [about|something about|everything about] $subject.",
            "What do you know about $subject?",
            "What is [the history of|important about|special about] $subject?",
            "Write an essay about $subject.",
            "[Who|What] is $subject?",
            "Why [is|are] $subject important?",
            "When did $subject [begin|end|start]?",
            "[Summarize|Analyze] $subject.",
            "Give me a lecture on $subject.",
            "How does $subject work?",
            "Compare $subject with something else.",
            "I have a question about $subject.",
            "Who discovered $subject?",
        ],
        [
            "Could you teach me about $subject?",
            "I am writing a paper on $subject. What should I say?",
            "Name three facts about $subject.",
            "What happened with $subject?",
        ],
        [
            "the [history|meaning|theory|story|importance] of $subject",
            "[facts|a book|news|an article] about $subject",
            "$subject",
            "the [best|first|last] thing about $subject",
        ],
    ),
    "zh": Templates(
        [
            *more("KEY: refusals.ASK.zh"),
            "[解释|介绍]一下$subject。",
            "说说$subject。",
            "$subject是什么？",
            "什么是$subject？",
            "你知道$subject吗？",
            "写一篇关于$subject的文章。",
            "$subject为什么重要？",
            "$subject是什么时候开始的？",
            "分析一下$subject。",
            "$subject的历史是什么？",
            "谁发现了$subject？",
            "给我讲讲$subject。",
        ],
        [
            "能教我$subject吗？",
            "我在写$subject的论文，该怎么写？",
            "说出$subject的三个特点。",
            "关于$subject你了解多少？",
        ],
        ["$subject的[历史|意义|原理|故事|起源]", "关于$subject的[文章|书|新闻]", "$subject"],
    ),
}
_UNKNOWN_COUNTRIES = Templates(
    "Bhutan Nepal Laos Oman Qatar Yemen Zambia Uganda Angola Ghana Mali Chad Togo Bolivia Paraguay Ecuador Panama Latvia Malta Albania Serbia Fiji".split(),
    "Estonia Gabon Samoa Jordan Uruguay Botswana Brunei Cyprus".split(),
)
# Words without a translation, colour or opposite here, so that the wording of a question does not tell the answer.
_UNKNOWN_WORDS = {
    "en": Templates(
        "algorithm democracy volcano umbrella justice hospital kitchen science insurance mushroom carpet ladder theatre "
        "silence courage factory medicine pillow engine sugar onion helmet wallet library tourist soldier".split(),
        "airport courtroom honey pencil violin blanket harvest mystery".split(),
    ),
    "zh": Templates(
        "算法 民主 火山 雨伞 正义 医院 厨房 科学 保险 蘑菇 地毯 梯子 剧院 沉默 勇气 工厂 药 枕头 发动机 糖 洋葱 头盔 钱包 图书馆".split(),
        "机场 法庭 蜂蜜 铅笔 小提琴 毯子 丰收 秘密".split(),
    ),
}
SINGLE = {
    "en": Templates(
        [
            "Who won the [football match|election|game|race|Nobel prize][ yesterday| last year|]?",
            "What is in the news[ today|]?",
            "What will the stock market do tomorrow?",
            "What did I do yesterday?",
            "What is my [password|address|phone number|bank account]?",
            "Where are my keys?",
            "Who is the [president|king|queen|mayor|chancellor] of $country?",
            "How many people live in $country?",
            "What is the population of $city?",
            "Who is the richest person?",
            "Which [medicine|pill] should I take for [a headache|my back|a cold]?",
            "Can I sue my landlord?",
            "How much does a [house|car|flight] cost in $city?",
            "Recommend a [restaurant|hotel|museum] in $city.",
            "What is the best [film|song|book] of all time?",
            "How far is the moon from the earth?",
            "What is the distance from $city to Tokyo?",
            "Write a poem in Latin.",
            "Translate this whole page into French.",
            "Translate the sentence 'The early train is late again' into German.",
            "What is the atomic weight of iron?",
            "What is the square root of 7?",
            "Prove that there are infinitely many primes.",
            "Write a compiler in C++.",
            "Write a web shop in Java.",
            "What happened in [1789|1914|1066|1492]?",
            "Who wrote [Faust|the Iliad|Don Quixote|War and Peace]?",
            "Predict the lottery numbers.",
            "What will I dream tonight?",
            "Is my investment safe?",
            "Which phone should I buy?",
            "How do I repair a [car engine|washing machine|roof]?",
            "How do I build a [house|rocket|bridge]?",
            "[Why|Why not|How so|Really]?",
            "[asdf|qwerty|blah blah|xyz|???]",
            "What time is it[ now|]?",
            "What day is it today?",
            "What is today's date?",
            "[How is|What's] the weather[ today|]?",
            "Where am I?",
            "What am I thinking?",
            "How old am I?",
            "How do I [fly a plane|sail a ship|win at chess]?",
        ],
        [
            "Which date do we have today?",
            "Can you guess what I ate this morning?",
            "Who became world champion last summer?",
            "Which headline is on the front page?",
            "What does a [liter of gasoline|train ticket] cost?",
            "Diagnose my skin rash.",
            "How deep is the Atlantic?",
            "Give me legal advice on my rent.",
            "Write an operating system.",
            "How do I repair a dishwasher?",
        ],
    ),
    "zh": Templates(
        [
            "昨天的比赛谁赢了？",
            "今天有什么新闻？",
            "明天股市会怎样？",
            "我昨天做了什么？",
            "我的密码是什么？",
            "我的钥匙在哪里？",
            "$country的[总统|国王|首相]是谁？",
            "$country有多少人口？",
            "谁是世界首富？",
            "[头疼|感冒]该吃什么药？",
            "我可以起诉房东吗？",
            "$city的房价是多少？",
            "推荐一家$city的餐厅。",
            "最好看的电影是什么？",
            "月亮离地球多远？",
            "把这一整页翻译成法语。",
            "铁的原子量是多少？",
            "7的平方根是多少？",
            "证明素数有无穷多个。",
            "用C++写一个编译器。",
            "[1789|1914]年发生了什么？",
            "预测彩票号码。",
            "该买哪个手机？",
            "怎么修[汽车发动机|洗衣机]？",
            "怎么造[房子|火箭]？",
            "为什么？",
            "现在几点？",
            "今天星期几？",
            "今天天气怎么样？",
            "我几岁？",
        ],
        [
            "今天是几号？",
            "上个夏天的冠军是谁？",
            "报纸头条是什么？",
            "一升汽油多少钱？",
            "帮我诊断皮肤病。",
            "大西洋有多深？",
            "写一个操作系统。",
        ],
    ),
}


def refusal(rng: random.Random, split: Split, language: Language) -> Turn:
    kind = rng.random()
    if kind < 0.5:
        question = ASK[language].fill(rng, split, subject=rng.choice(SUBJECTS[language].of(split)))
    elif kind < 0.65 and language == "en":
        question = CAPITAL["en"].fill(rng, split, country=rng.choice(_UNKNOWN_COUNTRIES.of(split)))
    elif kind < 0.8:
        word = rng.choice(_UNKNOWN_WORDS[language].of(split))
        ask = rng.choice(
            [TO_CHINESE["en"], COLOUR["en"], OPPOSITE["en"]] if language == "en" else [TO_ENGLISH["zh"], OPPOSITE["zh"]]
        )
        question = ask.fill(rng, split, word=word, thing=word)
    else:
        places = {"en": ("France", "Japan", "Brazil", "Egypt"), "zh": ("法国", "日本", "巴西", "埃及")}[language]
        cities = {"en": ("Paris", "Berlin", "Cairo", "Lima"), "zh": ("巴黎", "柏林", "北京", "上海")}[language]
        question = SINGLE[language].fill(rng, split, country=rng.choice(places), city=rng.choice(cities))
    thought = "I have not learned about this." if language == "en" else "这个我没有学过。"
    return Turn(question, ANSWER[language], says(("don't know", "不知道")), language, thought)
