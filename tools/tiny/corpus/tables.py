"""Words and facts that several topics draw from. Each row gives the English and the Chinese name."""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    en: str
    zh: str


class Country(NamedTuple):
    name: Name
    capital: Name
    continent: Name
    is_capital_big: bool  # roughly, a million people or more


_EUROPE, _ASIA, _AFRICA = Name("Europe", "欧洲"), Name("Asia", "亚洲"), Name("Africa", "非洲")
_NORTH, _SOUTH, _OCEANIA = Name("North America", "北美洲"), Name("South America", "南美洲"), Name("Oceania", "大洋洲")


def _countries(continent: Name, rows: str) -> list[Country]:
    """Rows of: country, its Chinese name, capital, its Chinese name, whether the capital is big."""
    found = []
    for row in rows.strip().splitlines():
        name, name_zh, capital, capital_zh, big = (cell.strip() for cell in row.split(","))
        found.append(Country(Name(name, name_zh), Name(capital, capital_zh), continent, big == "big"))
    return found


COUNTRIES: list[Country] = [
    *_countries(
        _EUROPE,
        """
        France, 法国, Paris, 巴黎, big
        Germany, 德国, Berlin, 柏林, big
        Italy, 意大利, Rome, 罗马, big
        Spain, 西班牙, Madrid, 马德里, big
        Portugal, 葡萄牙, Lisbon, 里斯本, small
        England, 英国, London, 伦敦, big
        Ireland, 爱尔兰, Dublin, 都柏林, small
        Norway, 挪威, Oslo, 奥斯陆, small
        Sweden, 瑞典, Stockholm, 斯德哥尔摩, big
        Finland, 芬兰, Helsinki, 赫尔辛基, small
        Denmark, 丹麦, Copenhagen, 哥本哈根, small
        Iceland, 冰岛, Reykjavik, 雷克雅未克, small
        Poland, 波兰, Warsaw, 华沙, big
        Austria, 奥地利, Vienna, 维也纳, big
        Switzerland, 瑞士, Bern, 伯尔尼, small
        Greece, 希腊, Athens, 雅典, small
        Hungary, 匈牙利, Budapest, 布达佩斯, big
        Russia, 俄罗斯, Moscow, 莫斯科, big
        Belgium, 比利时, Brussels, 布鲁塞尔, big
        """,
    ),
    *_countries(
        _ASIA,
        """
        China, 中国, Beijing, 北京, big
        Japan, 日本, Tokyo, 东京, big
        South Korea, 韩国, Seoul, 首尔, big
        India, 印度, New Delhi, 新德里, small
        Thailand, 泰国, Bangkok, 曼谷, big
        Vietnam, 越南, Hanoi, 河内, big
        Turkey, 土耳其, Ankara, 安卡拉, big
        Iran, 伊朗, Tehran, 德黑兰, big
        Mongolia, 蒙古, Ulaanbaatar, 乌兰巴托, big
        """,
    ),
    *_countries(
        _AFRICA,
        """
        Egypt, 埃及, Cairo, 开罗, big
        Kenya, 肯尼亚, Nairobi, 内罗毕, big
        Morocco, 摩洛哥, Rabat, 拉巴特, small
        Nigeria, 尼日利亚, Abuja, 阿布贾, big
        """,
    ),
    *_countries(
        _NORTH,
        """
        the United States, 美国, Washington, 华盛顿, small
        Canada, 加拿大, Ottawa, 渥太华, big
        Mexico, 墨西哥, Mexico City, 墨西哥城, big
        Cuba, 古巴, Havana, 哈瓦那, big
        """,
    ),
    *_countries(
        _SOUTH,
        """
        Brazil, 巴西, Brasilia, 巴西利亚, big
        Peru, 秘鲁, Lima, 利马, big
        Chile, 智利, Santiago, 圣地亚哥, big
        Argentina, 阿根廷, Buenos Aires, 布宜诺斯艾利斯, big
        """,
    ),
    *_countries(
        _OCEANIA,
        """
        Australia, 澳大利亚, Canberra, 堪培拉, small
        New Zealand, 新西兰, Wellington, 惠灵顿, small
        """,
    ),
]

# Cities for weather, clocks and addresses: the capitals and some more.
CITIES: list[Name] = [country.capital for country in COUNTRIES] + [
    Name("Shanghai", "上海"),
    Name("Shenzhen", "深圳"),
    Name("Guangzhou", "广州"),
    Name("Hangzhou", "杭州"),
    Name("New York", "纽约"),
    Name("Boston", "波士顿"),
    Name("Chicago", "芝加哥"),
    Name("Toronto", "多伦多"),
    Name("Sydney", "悉尼"),
    Name("Mumbai", "孟买"),
    Name("Osaka", "大阪"),
    Name("Hamburg", "汉堡"),
    Name("Munich", "慕尼黑"),
    Name("Milan", "米兰"),
    Name("Barcelona", "巴塞罗那"),
    Name("Porto", "波尔图"),
    Name("Geneva", "日内瓦"),
    Name("Cusco", "库斯科"),
]
# Is it a big city? The capitals answer by their column.
OTHER_CITY_SIZES: list[tuple[Name, bool]] = [
    (Name("Shanghai", "上海"), True),
    (Name("New York", "纽约"), True),
    (Name("Shenzhen", "深圳"), True),
    (Name("Guangzhou", "广州"), True),
    (Name("Chicago", "芝加哥"), True),
    (Name("Mumbai", "孟买"), True),
    (Name("Osaka", "大阪"), True),
    (Name("Sydney", "悉尼"), True),
    (Name("Cusco", "库斯科"), False),
    (Name("Geneva", "日内瓦"), False),
]

FIRST_NAMES = (
    "Anna Ben Clara David Emma Felix Grace Henry Ines Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor "
    "Wendy Alice Bob Carol Daniel Elena Frank Gina Hugo Ivan Julia Karl Lucy Marco Nina Oscar Peter Sara Tom Vera "
    "Amir Bella Chen Diego Eva Fatima George Hana Isaac Jane Kenji Laura Mila Nora Omar Pia Quinn Rita Simon Yuki"
).split()
CHINESE_NAMES = (
    "小明 小红 小华 小丽 小刚 小芳 李雷 韩梅梅 王伟 张敏 李娜 刘洋 陈静 杨帆 赵磊 周杰 吴倩 孙悦 林峰 何平".split()
)
JOBS = [
    Name("teacher", "老师"),
    Name("doctor", "医生"),
    Name("baker", "面包师"),
    Name("pilot", "飞行员"),
    Name("painter", "画家"),
    Name("farmer", "农民"),
    Name("nurse", "护士"),
    Name("cook", "厨师"),
    Name("driver", "司机"),
    Name("writer", "作家"),
    Name("singer", "歌手"),
    Name("lawyer", "律师"),
    Name("gardener", "园丁"),
    Name("engineer", "工程师"),
]
DAYS = [
    Name("Monday", "星期一"),
    Name("Tuesday", "星期二"),
    Name("Wednesday", "星期三"),
    Name("Thursday", "星期四"),
    Name("Friday", "星期五"),
    Name("Saturday", "星期六"),
    Name("Sunday", "星期日"),
]
MONTHS = [
    Name("January", "一月"),
    Name("February", "二月"),
    Name("March", "三月"),
    Name("April", "四月"),
    Name("May", "五月"),
    Name("June", "六月"),
    Name("July", "七月"),
    Name("August", "八月"),
    Name("September", "九月"),
    Name("October", "十月"),
    Name("November", "十一月"),
    Name("December", "十二月"),
]
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

COLOURS = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "white": "白色",
    "black": "黑色",
    "orange": "橙色",
    "brown": "棕色",
    "pink": "粉色",
    "grey": "灰色",
    "purple": "紫色",
}
COLOURED_THINGS: list[tuple[Name, str]] = [
    (Name("the sky", "天空"), "blue"),
    (Name("grass", "草"), "green"),
    (Name("snow", "雪"), "white"),
    (Name("milk", "牛奶"), "white"),
    (Name("blood", "血"), "red"),
    (Name("a banana", "香蕉"), "yellow"),
    (Name("a lemon", "柠檬"), "yellow"),
    (Name("a tomato", "西红柿"), "red"),
    (Name("a strawberry", "草莓"), "red"),
    (Name("a carrot", "胡萝卜"), "orange"),
    (Name("coal", "煤"), "black"),
    (Name("chocolate", "巧克力"), "brown"),
    (Name("a frog", "青蛙"), "green"),
    (Name("an elephant", "大象"), "grey"),
    (Name("a crow", "乌鸦"), "black"),
    (Name("a swan", "天鹅"), "white"),
    (Name("the ocean", "大海"), "blue"),
    (Name("a leaf", "叶子"), "green"),
    (Name("a flamingo", "火烈鸟"), "pink"),
    (Name("a pumpkin", "南瓜"), "orange"),
    (Name("an eggplant", "茄子"), "purple"),
    (Name("a fire engine", "消防车"), "red"),
    (Name("gold", "金子"), "yellow"),
    (Name("rice", "米饭"), "white"),
    (Name("a grape", "葡萄"), "purple"),
    (Name("coffee", "咖啡"), "brown"),
]


class Animal(NamedTuple):
    name: Name
    kind: Name
    num_legs: int
    sound: Name | None
    home: Name
    baby: str


_MAMMAL, _BIRD, _FISH = Name("mammal", "哺乳动物"), Name("bird", "鸟"), Name("fish", "鱼")
_INSECT, _REPTILE = Name("insect", "昆虫"), Name("reptile", "爬行动物")
_HOUSE, _FARM, _FOREST = Name("in a house", "家里"), Name("on a farm", "农场"), Name("in the forest", "森林里")
_SEA, _SAVANNA, _GARDEN = Name("in the sea", "海里"), Name("on the savanna", "草原上"), Name("in the garden", "花园里")
ANIMALS: list[Animal] = [
    Animal(Name("dog", "狗"), _MAMMAL, 4, Name("woof", "汪汪"), _HOUSE, "puppy"),
    Animal(Name("cat", "猫"), _MAMMAL, 4, Name("meow", "喵喵"), _HOUSE, "kitten"),
    Animal(Name("cow", "牛"), _MAMMAL, 4, Name("moo", "哞哞"), _FARM, "calf"),
    Animal(Name("sheep", "羊"), _MAMMAL, 4, Name("baa", "咩咩"), _FARM, "lamb"),
    Animal(Name("pig", "猪"), _MAMMAL, 4, Name("oink", "哼哼"), _FARM, "piglet"),
    Animal(Name("horse", "马"), _MAMMAL, 4, Name("neigh", "嘶嘶"), _FARM, "foal"),
    Animal(Name("duck", "鸭子"), _BIRD, 2, Name("quack", "嘎嘎"), _FARM, "duckling"),
    Animal(Name("hen", "母鸡"), _BIRD, 2, Name("cluck", "咯咯"), _FARM, "chick"),
    Animal(Name("owl", "猫头鹰"), _BIRD, 2, Name("hoot", "呼呼"), _FOREST, "owlet"),
    Animal(Name("wolf", "狼"), _MAMMAL, 4, Name("howl", "嗷嗷"), _FOREST, "pup"),
    Animal(Name("bear", "熊"), _MAMMAL, 4, Name("growl", "吼吼"), _FOREST, "cub"),
    Animal(Name("fox", "狐狸"), _MAMMAL, 4, None, _FOREST, "kit"),
    Animal(Name("lion", "狮子"), _MAMMAL, 4, Name("roar", "吼吼"), _SAVANNA, "cub"),
    Animal(Name("zebra", "斑马"), _MAMMAL, 4, None, _SAVANNA, "foal"),
    Animal(Name("giraffe", "长颈鹿"), _MAMMAL, 4, None, _SAVANNA, "calf"),
    Animal(Name("whale", "鲸鱼"), _MAMMAL, 0, None, _SEA, "calf"),
    Animal(Name("shark", "鲨鱼"), _FISH, 0, None, _SEA, "pup"),
    Animal(Name("salmon", "三文鱼"), _FISH, 0, None, _SEA, "fry"),
    Animal(Name("bee", "蜜蜂"), _INSECT, 6, Name("buzz", "嗡嗡"), _GARDEN, "larva"),
    Animal(Name("ant", "蚂蚁"), _INSECT, 6, None, _GARDEN, "larva"),
    Animal(Name("butterfly", "蝴蝶"), _INSECT, 6, None, _GARDEN, "caterpillar"),
    Animal(Name("snake", "蛇"), _REPTILE, 0, Name("hiss", "嘶嘶"), _FOREST, "snakelet"),
    Animal(Name("eagle", "老鹰"), _BIRD, 2, None, _FOREST, "eaglet"),
    Animal(Name("rabbit", "兔子"), _MAMMAL, 4, None, _GARDEN, "kit"),
]

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
CHINESE_NUMBERS = "零 一 二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六 十七 十八 十九 二十".split()

# Single words to translate.
WORDS: list[Name] = [
    Name(*pair.split("="))
    for pair in (
        "water=水 fire=火 tree=树 flower=花 house=房子 book=书 friend=朋友 school=学校 teacher=老师 student=学生 "
        "mother=妈妈 father=爸爸 child=孩子 sun=太阳 moon=月亮 star=星星 mountain=山 river=河 sea=海 rain=雨 "
        "snow=雪 wind=风 apple=苹果 bread=面包 rice=米饭 tea=茶 coffee=咖啡 milk=牛奶 egg=鸡蛋 fish=鱼 "
        "dog=狗 cat=猫 bird=鸟 horse=马 cow=牛 door=门 window=窗户 table=桌子 chair=椅子 bed=床 "
        "car=汽车 train=火车 plane=飞机 ship=船 bicycle=自行车 road=路 city=城市 village=村庄 bridge=桥 garden=花园 "
        "hand=手 head=头 eye=眼睛 ear=耳朵 mouth=嘴 heart=心 money=钱 clock=钟 letter=信 picture=图片 "
        "music=音乐 song=歌 game=游戏 computer=电脑 phone=电话 language=语言 word=词 number=数字 question=问题 answer=答案 "
        "today=今天 tomorrow=明天 yesterday=昨天 morning=早上 night=晚上 year=年 spring=春天 summer=夏天 autumn=秋天 winter=冬天 "
        "hello=你好 goodbye=再见 thanks=谢谢 love=爱 peace=和平 happy=高兴 beautiful=美丽 big=大 small=小 good=好"
    ).split()
]
OPPOSITES: list[tuple[Name, Name]] = [
    (Name("hot", "热"), Name("cold", "冷")),
    (Name("big", "大"), Name("small", "小")),
    (Name("fast", "快"), Name("slow", "慢")),
    (Name("old", "旧"), Name("new", "新")),
    (Name("good", "好"), Name("bad", "坏")),
    (Name("high", "高"), Name("low", "低")),
    (Name("long", "长"), Name("short", "短")),
    (Name("light", "轻"), Name("heavy", "重")),
    (Name("open", "开"), Name("closed", "关")),
    (Name("day", "白天"), Name("night", "黑夜")),
    (Name("left", "左"), Name("right", "右")),
    (Name("up", "上"), Name("down", "下")),
    (Name("early", "早"), Name("late", "晚")),
    (Name("full", "满"), Name("empty", "空")),
    (Name("rich", "富"), Name("poor", "穷")),
    (Name("wet", "湿"), Name("dry", "干")),
    (Name("happy", "高兴"), Name("sad", "难过")),
    (Name("easy", "容易"), Name("difficult", "困难")),
    (Name("near", "近"), Name("far", "远")),
    (Name("strong", "强"), Name("weak", "弱")),
]
# Words whose letters are counted.
SPELLED_WORDS = (
    "strawberry banana apple letter coffee pepper cherry orange book moon tree balloon pizza butter hello tomato "
    "potato cheese garden mirror cookie summer winter yellow purple elephant giraffe rabbit kangaroo mississippi "
    "banana bottle street coconut papaya avocado success address committee"
).split()
